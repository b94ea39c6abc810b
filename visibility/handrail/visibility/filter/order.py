"""The order of a list, and its pages. Pure.

Each order is total: flows of the same time follow each other by their place in the stream. Flows without the time come
last, in both directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Column, ColumnElement, Row, and_, or_

from handrail.mesh.conditions.look_ups import nearest
from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.visibility.filter.tokens import shown
from handrail.visibility.filter.unindexed import Unindexed
from handrail.visibility.index import schema

_FIRST = "first_sequence"
_COLUMNS = {"started": _FIRST, _FIRST: _FIRST, "updated": "updated", "deadline": "deadline"}
"""The columns by the names of orders. Flows start in the order of the stream."""


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a row in an order: the time that it is ordered by, if it has one, and its `first_sequence`."""

    time: datetime | None
    first_sequence: int


@dataclass(frozen=True, slots=True)
class Order:
    """An order of flows by one column."""

    column: str
    descending: bool

    def by(self) -> tuple[ColumnElement[object], ...]:
        """The arguments for `order_by`."""
        first = _directed(schema.flow.c.first_sequence, descending=self.descending)
        if self.is_of_stream:
            return (first,)
        return (_directed(self._ordered, descending=self.descending).nulls_last(), first)

    def after(self, place: Place) -> ColumnElement[bool]:
        """The condition for the rows after a place. No index finds rows by it, if it is about a time."""
        later = _beyond(schema.flow.c.first_sequence, place.first_sequence, descending=self.descending)
        if self.is_of_stream:
            return later
        column = Unindexed(self._ordered)
        if place.time is None:
            return and_(column.is_(None), later)
        farther = _beyond(column, place.time, descending=self.descending)
        return or_(farther, and_(column == place.time, later), column.is_(None))

    def place(self, row: Row[tuple[object, ...]]) -> Place:
        """The place of a row of `schema.flow`."""
        return Place(None if self.is_of_stream else getattr(row, self.column), row.first_sequence)

    @property
    def is_of_stream(self) -> bool:
        """Whether it is the order of the stream."""
        return self.column == _FIRST

    @property
    def _ordered(self) -> Column[object]:
        return schema.flow.c[self.column]


NEWEST_FIRST = Order(_FIRST, descending=True)
"""The order of a list that names none."""


def parse_order(text: str) -> Order:
    """Parses `started`, `updated`, `deadline` or `first_sequence`, or one of these and `desc`, the opposite direction.

    An empty text is NEWEST_FIRST. Raises BAD_FILTER.
    """
    name, *direction = text.split() or ["started", "desc"]
    if name in _COLUMNS and direction in ([], ["desc"]):
        return Order(_COLUMNS[name], descending=bool(direction))
    hint = nearest(name, _COLUMNS) if name not in _COLUMNS else ""
    known = f"; orders are {', '.join(_COLUMNS)}, each alone or with desc"
    raise HandrailError(ErrorReason.ERROR_REASON_BAD_FILTER, f"there is no order {shown(text)}{hint or known}")


def _directed(column: Column[object], *, descending: bool) -> ColumnElement[object]:
    return column.desc() if descending else column.asc()


def _beyond(column: ColumnElement[object], value: object, *, descending: bool) -> ColumnElement[bool]:
    return column < value if descending else column > value
