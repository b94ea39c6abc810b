"""What changed of some flows, as plain values in the order of a table's columns: both databases take them as they are.
Pure; what folds in another process sends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Table

from handrail.visibility.index import schema
from handrail.visibility.index.rows import FlowRows, Row

Value = str | int | float | bool | None
Values = tuple[Value, ...]
"""One row."""

REPLACED: Mapping[str, Table] = {
    "owed": schema.owed,
    "approvals": schema.approval,
    "acts": schema.act,
    "escalations": schema.escalation,
    "attributes": schema.attribute,
}
"""Tables whose rows of a flow are replaced as a whole, by their field in `FlowRows`."""

ADDED: Mapping[str, Table] = {"divergences": schema.divergence, "failures": schema.failure}
"""Tables whose rows are never changed."""

NEW: Final = FlowRows("", "")
"""The rows of a flow of which the index has nothing."""


@dataclass(slots=True)
class Changes:
    """Rows to store, by table, and what they replace.

    `replaced` are the flows whose rows of a table go first, by their `first_sequence`; `keys` are type and id of
    the flows whose row in `unfolded` goes, `gone` of those whose other rows go, unless they have a verdict.
    """

    rows: dict[str, list[Values]] = field(default_factory=dict)
    replaced: dict[str, list[int]] = field(default_factory=dict)
    keys: list[tuple[str, str]] = field(default_factory=list)
    gone: list[tuple[str, str]] = field(default_factory=list)

    def add(self, after: FlowRows, before: FlowRows | None = None) -> None:
        """Adds the rows of a flow. `before` are those that the index has: NEW for none, None if they are not known."""
        if before is None:
            self.keys.append((after.flow_type, after.flow_id))
        if after.unfolded is not None:
            self._put(schema.unfolded, [after.unfolded])
        if after.flow is None:
            if after.has_beginning:
                self.gone.append((after.flow_type, after.flow_id))
            return
        self._put(schema.flow, [after.flow])
        for name, table in REPLACED.items():
            rows: list[Row] = getattr(after, name)
            former: list[Row] | None = None if before is None else getattr(before, name)
            if rows == former:
                continue
            if former != []:
                self.replaced.setdefault(table.name, []).append(first_sequence(after.flow))
            self._put(table, rows)
        for name, table in ADDED.items():
            rows = getattr(after, name)
            former = [] if before is None else getattr(before, name)
            self._put(table, [row for row in rows if row not in former] if former else rows)

    def merge(self, other: Changes) -> None:
        """Adds changes of other flows."""
        for table, rows in other.rows.items():
            self.rows.setdefault(table, []).extend(rows)
        for table, firsts in other.replaced.items():
            self.replaced.setdefault(table, []).extend(firsts)
        self.keys += other.keys
        self.gone += other.gone

    def _put(self, table: Table, rows: Sequence[Row]) -> None:
        if rows:
            self.rows.setdefault(table.name, []).extend(values_of(table, rows))


def values_of(table: Table, rows: Iterable[Row]) -> list[Values]:
    """Rows of a table in the order of its columns, as they are stored."""
    columns = _COLUMNS[table.name]
    return [
        tuple([row[name] if bind is None else bind(row[name]) for name, bind in columns])  # type: ignore[misc]
        for row in rows
    ]


def first_sequence(row: Row) -> int:
    """What names the flow of a row in all tables."""
    return int(row["first_sequence"])  # type: ignore[call-overload,no-any-return]  # a row has values of any type


def changes_of(flows: Sequence[FlowRows]) -> Changes:
    """The changes of flows of which the index may have anything."""
    changes = Changes()
    for each in flows:
        changes.add(each)
    return changes


def _binding(kind: object) -> Callable[[object], Value] | None:
    if isinstance(kind, schema.Words | schema.Instant):
        return kind.stored  # type: ignore[return-value]
    return None


_COLUMNS = {
    table.name: [(column.name, _binding(column.type)) for column in table.c] for table in schema.metadata.sorted_tables
}
