"""Writes rows and the position in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import product
from typing import TypeVar

from sqlalchemy import Connection, Engine, Table, delete, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from handrail.visibility.index import schema
from handrail.visibility.index.database import POSTGRESQL, Position
from handrail.visibility.index.errors import index_error, refuse
from handrail.visibility.index.rows import FlowRows, Row

_PER_STATEMENT = 500
"""Names in one condition. SQLite takes at most 32,766 parameters, PostgreSQL 65,535."""

_REPLACED = (schema.owed, schema.approval, schema.escalation, schema.attribute)
"""Tables whose rows of a flow are replaced as a whole. The rows of the others are never changed."""

_FLOW_COLUMNS = [column.name for column in schema.flow.c if column.name not in ("first_sequence", "verdict")]

Item = TypeVar("Item")


class Writer:
    """Writes to the index, from a position on. It is refused once the index is elsewhere: somebody else wrote to it."""

    def __init__(self, engine: Engine, position: Position) -> None:
        self._engine = engine
        self._position = position
        self._insert = postgresql.insert if engine.dialect.name == POSTGRESQL else sqlite.insert

    def write(self, flows: Sequence[FlowRows], *, sequence: int, time: datetime) -> None:
        """Stores the rows of changed flows, and that the index covers everything up to `sequence`, stored at `time`.

        Raises INDEX_UNAVAILABLE; then nothing is stored, or the answer got lost. `prepare` tells where the index is.
        """
        after = replace(self._position, sequence=sequence, time=time)
        try:
            with self._engine.begin() as connection:
                self._advance(connection, after)
                self._write(connection, flows)
        except SQLAlchemyError as error:
            refuse(error, self._engine)
        self._position = after

    def known(self, flow_ids: Collection[str]) -> set[tuple[str, str]]:
        """Type and id of those of these flows that the index has, folded or not. Raises INDEX_UNAVAILABLE."""
        found: set[tuple[str, str]] = set()
        try:
            with self._engine.connect() as connection:
                for some, table in product(_parts(sorted(flow_ids)), (schema.flow, schema.unfolded)):
                    query = select(table.c.flow_type, table.c.flow_id).where(table.c.flow_id.in_(some))
                    found |= {(row.flow_type, row.flow_id) for row in connection.execute(query)}
        except SQLAlchemyError as error:
            refuse(error, self._engine)
        return found

    def unfolded(self) -> list[tuple[str, str, int]]:
        """Type and id of the flows that could not be folded, oldest first, and the position of their last message.

        Raises INDEX_UNAVAILABLE.
        """
        table = schema.unfolded.c
        query = select(table.flow_type, table.flow_id, table.sequence).order_by(table.sequence)
        try:
            with self._engine.connect() as connection:
                return [(row.flow_type, row.flow_id, row.sequence) for row in connection.execute(query)]
        except SQLAlchemyError as error:
            refuse(error, self._engine)

    def _advance(self, connection: Connection, after: Position) -> None:
        """Moves the position, which nobody else can do until the transaction ends."""
        at = schema.position.c
        is_here = (at.stream_created == self._position.stream_created) & (at.sequence == self._position.sequence)
        moved = connection.execute(
            schema.position.update().where(is_here).values(sequence=after.sequence, time=after.time)
        )
        if moved.rowcount != 1:
            raise index_error("another process writes to this index, or it was begun anew")

    def _write(self, connection: Connection, flows: Sequence[FlowRows]) -> None:
        folded = [each.flow for each in flows if each.flow is not None]
        self._put_flows(connection, folded)
        for table in _REPLACED:
            for some in _parts([each["first_sequence"] for each in folded]):
                connection.execute(delete(table).where(table.c.first_sequence.in_(some)))
        for some_keys in _parts([(each.flow_type, each.flow_id) for each in flows]):
            keys = tuple_(schema.unfolded.c.flow_type, schema.unfolded.c.flow_id)
            connection.execute(delete(schema.unfolded).where(keys.in_(some_keys)))
        self._add(connection, schema.unfolded, (each.unfolded for each in flows if each.unfolded is not None))
        self._add(connection, schema.owed, (row for each in flows for row in each.owed))
        self._add(connection, schema.approval, (row for each in flows for row in each.approvals))
        self._add(connection, schema.escalation, (row for each in flows for row in each.escalations))
        self._add(connection, schema.attribute, (row for each in flows for row in each.attributes))
        self._add(connection, schema.divergence, (row for each in flows for row in each.divergences))
        self._add(connection, schema.failure, (row for each in flows for row in each.failures))

    def _put_flows(self, connection: Connection, rows: Sequence[Row]) -> None:
        if rows:
            statement = self._insert(schema.flow)
            changed = {name: statement.excluded[name] for name in _FLOW_COLUMNS}
            upsert = statement.on_conflict_do_update(index_elements=["first_sequence"], set_=changed)
            connection.execute(upsert, rows)

    def _add(self, connection: Connection, table: Table, rows: Iterable[Row]) -> None:
        """Inserts rows; those that are there stay as they are."""
        if some := list(rows):
            connection.execute(self._insert(table).on_conflict_do_nothing(), some)


def _parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (items[start : start + _PER_STATEMENT] for start in range(0, len(items), _PER_STATEMENT))
