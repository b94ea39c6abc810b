"""Writes rows and the position in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import product
from typing import TypeVar

from sqlalchemy import Connection, Engine, Table, delete, select
from sqlalchemy.exc import SQLAlchemyError

from handrail.visibility.index import hours, schema
from handrail.visibility.index.changes import ADDED, REPLACED, Changes, Values, changes_of
from handrail.visibility.index.database import Position
from handrail.visibility.index.errors import index_error, refuse
from handrail.visibility.index.hours import Counted
from handrail.visibility.index.rows import FlowRows
from handrail.visibility.index.statements import Statements

MOST_UNFOLDED = 10_000
"""The most rows of `unfolded`. Further flows that can't be folded have one together, OTHERS."""

OTHERS = ("*", "*")
"""Stands for type and id of flows that can't be folded and have no row of their own. It stays until the index begins
anew: it can't be told which of them could be folded since.
"""

_WHY_OTHERS = "further flows can't be folded: there are too many of them to list"

_PER_STATEMENT = 500
"""Names in one condition. SQLite takes at most 32,766 parameters, PostgreSQL 65,535."""

_KEPT = [column.name for column in (schema.flow.c.flow_type, schema.flow.c.flow_id, schema.flow.c.verdict)]
"""Columns of a flow that stay as they are: `first_sequence` decides its type and its id, so that their indexes need not
be written again; for its verdict, see `ArchivedWriter`.
"""

Item = TypeVar("Item")
Key = tuple[str, str]


class Writer:
    """Writes to the index, from a position on. It is refused once the index is elsewhere: somebody else wrote to it."""

    def __init__(self, engine: Engine, position: Position) -> None:
        self._engine = engine
        self._position = position
        self._statements = Statements(engine.dialect)
        self._unfolded: dict[Key, int] | None = None

    def write(self, flows: Sequence[FlowRows], *, sequence: int, time: datetime) -> None:
        """Stores the rows of flows of which the index may have anything; the rest is that of `store`."""
        self.store(changes_of(flows), sequence=sequence, time=time)

    def store(self, changes: Changes, *, sequence: int, time: datetime) -> None:
        """Stores what changed, and that the index covers everything up to `sequence`, stored at `time`.

        Raises INDEX_UNAVAILABLE; then nothing is stored, or the answer got lost. `prepare` tells where the index is.
        """
        after = replace(self._position, sequence=sequence, time=time)
        try:
            with self._engine.begin() as connection:
                self._advance(connection, after)
                left = self._store(connection, changes)
        except SQLAlchemyError as error:
            refuse(error, self._engine)
        self._position = after
        self._unfolded = left

    def known(self, flow_ids: Collection[str]) -> set[Key]:
        """Type and id of those of these flows that the index has, folded or not. Raises INDEX_UNAVAILABLE."""
        found: set[Key] = set()
        try:
            with self._engine.connect() as connection:
                for some, table in product(_parts(sorted(flow_ids)), (schema.flow, schema.unfolded)):
                    query = select(table.c.flow_type, table.c.flow_id).where(table.c.flow_id.in_(some))
                    found |= {(row.flow_type, row.flow_id) for row in connection.execute(query)}
        except SQLAlchemyError as error:
            refuse(error, self._engine)
        return found

    def unfolded(self) -> dict[Key, int]:
        """Type and id of the flows that could not be folded, oldest first, and the position of their last message; but
        for OTHERS.

        Raises INDEX_UNAVAILABLE.
        """
        if self._unfolded is None:
            try:
                with self._engine.begin() as connection:
                    self._unfolded = self._read_unfolded(connection)
            except SQLAlchemyError as error:
                refuse(error, self._engine)
        return {key: sequence for key, sequence in self._unfolded.items() if key != OTHERS}

    @property
    def has_unfolded(self) -> bool:
        """Whether there are flows that could not be folded. It is known after the first call of `unfolded`."""
        return bool(self._unfolded)

    @property
    def may_lack(self) -> bool:
        """Whether the index lacks flows that could not be folded. It is known after the first call of `unfolded`."""
        return self._unfolded is not None and OTHERS in self._unfolded

    def _advance(self, connection: Connection, after: Position) -> None:
        """Moves the position, which nobody else can do until the transaction ends."""
        at = schema.position.c
        is_here = (at.stream_created == self._position.stream_created) & (at.sequence == self._position.sequence)
        moved = connection.execute(
            schema.position.update().where(is_here).values(sequence=after.sequence, time=after.time)
        )
        if moved.rowcount != 1:
            raise index_error("another process writes to this index, or it was begun anew")

    def _store(self, connection: Connection, changes: Changes) -> dict[Key, int]:
        """Stores what changed; returns the flows that are unfolded then."""
        unfolded = dict(self._unfolded) if self._unfolded is not None else self._read_unfolded(connection)
        settled = unfolded.keys() & set(changes.keys)
        for flow_type, flow_id in settled:
            at = schema.unfolded.c
            connection.execute(delete(schema.unfolded).where((at.flow_type == flow_type) & (at.flow_id == flow_id)))
            del unfolded[flow_type, flow_id]
        rows = changes.rows.get(schema.unfolded.name, [])
        room = max(0, MOST_UNFOLDED - len(unfolded))
        new, others = rows[:room], rows[room:][-1:]
        if others and OTHERS not in unfolded:
            new += [(*OTHERS, _WHY_OTHERS, *others[0][3:])]
        unfolded |= {(str(row[0]), str(row[1])): int(str(row[3])) for row in new}
        self._add(connection, schema.unfolded, new)
        self._remove(connection, changes.gone)
        for table in REPLACED.values():
            self._statements.delete(connection, table, changes.replaced.get(table.name, []))
        self._put_flows(connection, changes.rows.get(schema.flow.name, []))
        for table in (*REPLACED.values(), *ADDED.values()):
            self._add(connection, table, changes.rows.get(table.name, []))
        return unfolded

    def _remove(self, connection: Connection, keys: Sequence[Key]) -> None:
        """Removes the rows of flows that can't be folded any more; those that left FLOW have a verdict, and stay."""
        at, gone = schema.flow.c, set(keys)
        for some in _parts(sorted({flow_id for _, flow_id in gone})):
            query = select(at.first_sequence, at.flow_type, at.flow_id).where(
                at.flow_id.in_(some) & at.verdict.is_(None)
            )
            found = connection.execute(query).all()
            firsts = [row.first_sequence for row in found if (row.flow_type, row.flow_id) in gone]
            self._count(connection, hours.read(connection, firsts), [])
            for table in (*REPLACED.values(), *ADDED.values(), schema.flow):
                self._statements.delete(connection, table, firsts)

    def _put_flows(self, connection: Connection, rows: Sequence[Values]) -> None:
        """Inserts or replaces flows, and counts them; the verdict of one that is there stays."""
        for some in _parts(rows):
            before = hours.read(connection, [int(str(row[0])) for row in some])
            self._count(connection, before, hours.counted(some))
        self._statements.replace(connection, schema.flow, rows, but=_KEPT)

    def _count(self, connection: Connection, before: Sequence[Counted], after: Sequence[Counted]) -> None:
        """Changes the counts of flows by hour."""
        self._statements.increase(connection, schema.flow_hour, hours.difference(before, after))

    def _add(self, connection: Connection, table: Table, rows: Sequence[Values]) -> None:
        """Inserts rows; those that are there stay as they are."""
        self._statements.add(connection, table, rows)

    def _read_unfolded(self, connection: Connection) -> dict[Key, int]:
        """The flows that are unfolded."""
        table = schema.unfolded.c
        query = select(table.flow_type, table.flow_id, table.sequence).order_by(table.sequence)
        return {(row.flow_type, row.flow_id): row.sequence for row in connection.execute(query)}


def _parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (items[start : start + _PER_STATEMENT] for start in range(0, len(items), _PER_STATEMENT))
