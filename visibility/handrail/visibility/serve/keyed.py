"""An order of rows by columns that always have a value. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Column, ColumnElement, Row, Table, tuple_

from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.visibility.filter.tokens import shown
from handrail.visibility.serve.page_token import Key


@dataclass(frozen=True, slots=True)
class Keyed:
    """By these columns of a table, which together are different in every row."""

    table: Table
    columns: tuple[tuple[str, type[Key]], ...]
    descending: bool

    @property
    def kinds(self) -> tuple[type[Key], ...]:
        """See `RowOrder`."""
        return tuple(kind for _, kind in self.columns)

    def by(self) -> tuple[ColumnElement[object], ...]:
        """See `RowOrder`."""
        return tuple(each.desc() if self.descending else each.asc() for each in self._columns)

    def after(self, keys: tuple[Key, ...]) -> ColumnElement[bool]:
        """See `RowOrder`."""
        here = tuple_(*self._columns)
        there = tuple_(*keys, types=[each.type for each in self._columns])
        return here < there if self.descending else here > there

    def keys(self, row: Row[tuple[object, ...]]) -> tuple[Key, ...]:
        """See `RowOrder`."""
        return tuple(getattr(row, name) for name, _ in self.columns)

    @property
    def _columns(self) -> tuple[Column[object], ...]:
        return tuple(self.table.c[name] for name, _ in self.columns)


def keyed(text: str, name: str, columns: Mapping[str, type[Key]], table: Table, *, descending: bool) -> Keyed:
    """Parses the only order that a list has: its name, or the name and `desc`; an empty text is the usual direction.

    Raises BAD_FILTER.
    """
    words = text.split()
    if words not in ([], [name], [name, "desc"]):
        raise HandrailError(
            ErrorReason.ERROR_REASON_BAD_FILTER,
            f"there is no order {shown(text)}; this list is ordered by {name}, alone or with desc",
        )
    return Keyed(table, tuple(columns.items()), words[1:] == ["desc"] if words else descending)
