"""Writes to the index what the archive says of flows that left the stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, bindparam, delete, select
from sqlalchemy.exc import SQLAlchemyError

from handrail.visibility.archive.verdict import PERSONAL, Verdict
from handrail.visibility.index import schema
from handrail.visibility.index.changes import ADDED, REPLACED, changes_of, values_of
from handrail.visibility.index.database import Position
from handrail.visibility.index.errors import index_error, refuse
from handrail.visibility.index.rows import FlowRows, Row
from handrail.visibility.index.writer import Writer

_OF_A_FLOW = (
    schema.owed,
    schema.approval,
    schema.act,
    schema.escalation,
    schema.attribute,
    schema.failure,
    schema.divergence,
)

_KEPT = {
    schema.approval: "approvals",
    schema.act: "acts",
    schema.attribute: "attributes",
    schema.divergence: "divergences",
    schema.failure: "failures",
}
"""What the index keeps of an archived flow, by the fields of `FlowRows`."""


@dataclass(frozen=True, slots=True)
class Archived:
    """A verdict, its number, and the rows of the flow if the index does not have them."""

    number: int
    verdict: Verdict
    rows: FlowRows | None = None

    @property
    def flow(self) -> Row:
        """The flow's row: as it was judged, whatever another release would make of its messages."""
        folded = self.rows.flow if self.rows is not None else None
        return {**(folded or {}), **self.verdict.summary, "verdict": self.number}


class ArchivedWriter(Writer):
    """Writes what became of archived flows, beside the writer that follows the stream."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, Position(""))

    def taken(self) -> int | None:
        """How many verdicts the index has taken; None if there is no index. Raises INDEX_UNAVAILABLE."""
        try:
            with self._engine.connect() as connection:
                row = connection.execute(select(schema.position.c.verdicts)).one_or_none()
        except SQLAlchemyError as error:
            refuse(error, self._engine)
        return None if row is None else row.verdicts

    def lacking(self, verdicts: Iterable[tuple[int, Verdict]]) -> list[Archived]:
        """Those whose messages the index has not folded, or not all of them. Raises INDEX_UNAVAILABLE."""
        archived = [Archived(number, verdict) for number, verdict in verdicts]
        columns = (schema.flow.c.first_sequence, schema.flow.c.last_sequence)
        query = select(*columns).where(schema.flow.c.first_sequence.in_([each.verdict.first for each in archived]))
        try:
            with self._engine.connect() as connection:
                known = {(row.first_sequence, row.last_sequence) for row in connection.execute(query)}
        except SQLAlchemyError as error:
            refuse(error, self._engine)
        return [each for each in archived if (each.verdict.first, each.verdict.sequences[-1]) not in known]

    def put(self, archived: Sequence[Archived], *, after: int) -> None:
        """Stores verdicts, the next ones `after` as many. Raises INDEX_UNAVAILABLE, and stores nothing then."""
        at = schema.position.c
        moved = schema.position.update().where(at.verdicts == after).values(verdicts=archived[-1].number)
        try:
            with self._engine.begin() as connection:
                if connection.execute(moved).rowcount != 1:
                    raise index_error("another process writes to this index, or it was begun anew")
                self._put(connection, [each for each in archived if not each.verdict.withdrawn])
        except SQLAlchemyError as error:
            refuse(error, self._engine)

    def erase(self, verdict: Verdict) -> None:
        """Removes what the index has of an erased flow, but for its row. Raises INDEX_UNAVAILABLE.

        An index that has not taken the verdict yet takes it as it is then.
        """
        at = schema.flow.c
        kept = {name: verdict.summary[name] for name in PERSONAL}
        try:
            with self._engine.begin() as connection:
                for table in _OF_A_FLOW:
                    connection.execute(delete(table).where(table.c.first_sequence == verdict.first))
                connection.execute(schema.flow.update().where(at.first_sequence == verdict.first).values(**kept))
        except SQLAlchemyError as error:
            refuse(error, self._engine)

    def withdraw(self, number: int, verdict: Verdict, rows: FlowRows | None) -> None:
        """Removes a verdict that the index may have taken. `rows` are the flow's as it is now, if it folds: they
        take the place of those that were judged. Who follows the stream puts the rows of any other state.

        Raises INDEX_UNAVAILABLE.
        """
        at = schema.flow.c
        here = schema.flow.update().where(at.first_sequence == verdict.first, at.verdict == number).values(verdict=None)
        try:
            with self._engine.begin() as connection:
                is_judged = connection.execute(here.where(at.last_sequence == verdict.sequences[-1])).rowcount
                connection.execute(here)
                if is_judged and rows is not None and rows.flow is not None:
                    self._replace(connection, rows)
        except SQLAlchemyError as error:
            refuse(error, self._engine)

    def _replace(self, connection: Connection, rows: FlowRows) -> None:
        changes = changes_of([rows])
        for table in REPLACED.values():
            self._statements.delete(connection, table, changes.replaced.get(table.name, []))
        self._put_flows(connection, changes.rows.get(schema.flow.name, []))
        for table in (*REPLACED.values(), *ADDED.values()):
            self._add(connection, table, changes.rows.get(table.name, []))

    def _put(self, connection: Connection, archived: Sequence[Archived]) -> None:
        if not archived:
            return
        gone = [each.verdict.first for each in archived if each.verdict.erased]
        stale = [each.verdict.first for each in archived if each.rows is not None]
        for table in _OF_A_FLOW:
            connection.execute(delete(table).where(table.c.first_sequence.in_([*gone, *stale])))
        self._put_flows(connection, values_of(schema.flow, (each.flow for each in archived)))
        marked = schema.flow.update().where(schema.flow.c.first_sequence == bindparam("at"))
        numbers = [{"at": each.verdict.first, "number": each.number} for each in archived]
        connection.execute(marked.values(verdict=bindparam("number")), numbers)
        rows = [each.rows for each in archived if each.rows is not None and not each.verdict.erased]
        for table, field in _KEPT.items():
            self._add(connection, table, values_of(table, (row for each in rows for row in getattr(each, field))))
