"""Writes rows and the position in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Connection, Engine, Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from handrail.visibility.index import schema
from handrail.visibility.index.database import POSTGRESQL, refuse
from handrail.visibility.index.rows import FlowRows, Row

_PER_STATEMENT = 500
"""Names in one condition. SQLite takes at most 32,766 parameters, PostgreSQL 65,535."""

_REPLACED = (schema.owed, schema.approval, schema.escalation, schema.attribute)
"""Tables whose rows of a flow are replaced as a whole. The rows of the others are never changed."""

_FLOW_COLUMNS = [column.name for column in schema.flow.c if column.name != "first_sequence"]

Item = TypeVar("Item")


class Writer:
    """Writes to the index. One process writes to a database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._insert = postgresql.insert if engine.dialect.name == POSTGRESQL else sqlite.insert

    def write(self, flows: Sequence[FlowRows], *, sequence: int, time: datetime) -> None:
        """Stores the rows of changed flows, and that the index covers everything up to `sequence`, stored at `time`.

        Raises INDEX_UNAVAILABLE; then nothing is stored.
        """
        try:
            with self._engine.begin() as connection:
                self._write(connection, flows)
                connection.execute(schema.position.update().values(sequence=sequence, time=time))
        except SQLAlchemyError as error:
            refuse(error)

    def known(self, flow_ids: Collection[str]) -> set[tuple[str, str]]:
        """Type and id of those of these flows that the index has. Raises INDEX_UNAVAILABLE."""
        found: set[tuple[str, str]] = set()
        try:
            with self._engine.connect() as connection:
                for some in _parts(sorted(flow_ids)):
                    query = select(schema.flow.c.flow_type, schema.flow.c.flow_id).where(
                        schema.flow.c.flow_id.in_(some)
                    )
                    found |= {(row.flow_type, row.flow_id) for row in connection.execute(query)}
        except SQLAlchemyError as error:
            refuse(error)
        return found

    def _write(self, connection: Connection, flows: Sequence[FlowRows]) -> None:
        self._put_flows(connection, [each.flow for each in flows])
        for table in _REPLACED:
            for some in _parts([each.flow["first_sequence"] for each in flows]):
                connection.execute(delete(table).where(table.c.first_sequence.in_(some)))
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
