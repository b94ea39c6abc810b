"""Looking at flows in the order of a list, a window after the other. What is looked at is found by an index in this
order, so a window costs what it holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Select, or_, select, union_all

from handrail.visibility.filter import Condition, Order, Place
from handrail.visibility.filter.lookups import Lookup, Search, is_of_open_flows, tested
from handrail.visibility.index import schema

_FLOW = schema.flow.c
_LAST = 10**18 - 1
"""Beyond every sequence; page tokens have room for it."""

_EVERY_FLOW = Search((Lookup(schema.flow, (), is_ordered=True),))


@dataclass(frozen=True, slots=True)
class Window:
    """The flows of a condition within a stretch of the order. `end` is where it ends; None if nothing is behind it."""

    statement: Select[tuple[object, ...]]
    end: Place | None


class Walk:
    """Looks at all flows, or at those that one of the searches finds, and tests them.

    Flows without the time of the order come last: they are a stretch of their own.
    """

    def __init__(self, condition: Condition, order: Order, found: Sequence[Search]) -> None:
        self.order = order
        self._test = tested(condition)
        self._open = (_FLOW.ended.is_(None),) if is_of_open_flows(condition) else ()
        ordered = tuple(each for each in found if each.is_ordered)
        self._searches = ordered if order.is_of_stream and ordered else (_EVERY_FLOW,)

    def window(self, connection: Connection, after: Place | None, flows: int) -> Window:
        """The next window, of about this many flows. Raises what the database raises."""
        if self.order.is_of_stream:
            return self._of_stream(connection, after, flows)
        if after is not None and after.time is None:
            return self._without_time(connection, after, flows)
        return self._with_time(connection, after, flows)

    def _of_stream(self, connection: Connection, after: Place | None, flows: int) -> Window:
        """Of several searches, the one that gets farthest looks at the fewest."""
        farthest: tuple[Search, int | None] | None = None
        first: int | None
        for search in self._searches:
            first = connection.execute(self._end(search, after, flows)).scalar_one_or_none()
            if first is None:
                farthest = search, None
                break
            if farthest is None or farthest[1] is None or self._is_behind(first, farthest[1]):
                farthest = search, first
        assert farthest is not None, "there is always a search"
        search, first = farthest
        end = None if first is None else Place(None, first)
        where = [*self._stretch(_FLOW.first_sequence, after, end)]
        if search is not _EVERY_FLOW:
            lookups = [
                each.ordered().where(*self._stretch(each.table.c.first_sequence, after, end)) for each in search.lookups
            ]
            found = union_all(*lookups).cte("looked_at").prefix_with("MATERIALIZED")
            where.append(_FLOW.first_sequence.in_(select(found.c.first_sequence)))
        return Window(self._statement(where), end)

    def _end(self, search: Search, after: Place | None, flows: int) -> Select[int]:
        parts = []
        for each in search.lookups:
            column = each.table.c.first_sequence
            part = each.ordered().where(*self._stretch(column, after, None))
            parts.append(part.order_by(self._directed(column)).limit(flows))
        if len(parts) == 1:
            return parts[0].offset(flows - 1).limit(1)
        found = union_all(*(select(part.subquery()) for part in parts)).subquery()
        column = found.c.first_sequence
        return select(column).order_by(self._directed(column)).offset(flows - 1).limit(1)

    def _with_time(self, connection: Connection, after: Place | None, flows: int) -> Window:
        time = self._time
        ordered = (self._directed(time), self._directed(_FLOW.first_sequence))
        ends = select(time, _FLOW.first_sequence).where(time.is_not(None), *self._open, *self._later(after))
        found = connection.execute(ends.order_by(*ordered).offset(flows - 1).limit(1)).one_or_none()
        end = None if found is None else Place(*found)
        where = (time.is_not(None), *self._open, *self._later(after), *self._earlier(end))
        statement = select(schema.flow).where(self._test, *where).order_by(*ordered)
        return Window(statement, end or Place(None, _LAST if self.order.descending else 0))

    def _without_time(self, connection: Connection, after: Place, flows: int) -> Window:
        time, first = self._time, _FLOW.first_sequence
        ends = (
            select(first)
            .where(time.is_(None), *self._open, *self._stretch(first, after, None))
            .order_by(self._directed(first))
        )
        found = connection.execute(ends.offset(flows - 1).limit(1)).scalar_one_or_none()
        end = None if found is None else Place(None, found)
        return Window(self._statement([time.is_(None), *self._open, *self._stretch(first, after, end)]), end)

    def _statement(self, where: Sequence[ColumnElement[bool]]) -> Select[tuple[object, ...]]:
        return select(schema.flow).where(self._test, *where).order_by(self._directed(_FLOW.first_sequence))

    def _stretch(
        self, column: ColumnElement[int], after: Place | None, end: Place | None
    ) -> Iterator[ColumnElement[bool]]:
        """Behind a place in the order of the stream, up to another, which is included."""
        if after is not None:
            yield column < after.first_sequence if self.order.descending else column > after.first_sequence
        if end is not None:
            yield column >= end.first_sequence if self.order.descending else column <= end.first_sequence

    def _later(self, after: Place | None) -> Iterator[ColumnElement[bool]]:
        """Behind a place in the order of a time. The first condition is one that an index takes."""
        if after is not None:
            time, first = self._time, _FLOW.first_sequence
            yield time <= after.time if self.order.descending else time >= after.time
            yield or_(time != after.time, *self._stretch(first, after, None))

    def _earlier(self, end: Place | None) -> Iterator[ColumnElement[bool]]:
        if end is not None:
            time, first = self._time, _FLOW.first_sequence
            yield time >= end.time if self.order.descending else time <= end.time
            yield or_(time != end.time, *self._stretch(first, None, end))

    def _is_behind(self, first: int, other: int) -> bool:
        return first < other if self.order.descending else first > other

    def _directed(self, column: ColumnElement[object]) -> ColumnElement[object]:
        return column.desc() if self.order.descending else column.asc()

    @property
    def _time(self) -> ColumnElement[object]:
        return _FLOW[self.order.column]
