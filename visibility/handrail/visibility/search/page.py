"""Flows that pass a condition: a page of them in an order, and how many there are, each found within a bounded time.

    finder = Finder(connection, condition)
    page = finder.page(order, size=50)
    page = finder.page(order, size=50, after=page.next)

1. If an index finds few flows, all of them are tested and sorted, unless the index has them in the order of the list.
   How many it finds is counted, up to `FEW`.
2. Otherwise flows are looked at in the order of the list, a window after the other, until the page is full, or the
   time is over. Then the page may be short, or empty, and `next` is the place up to which flows were looked at.

So no answer depends on what the database takes for a good plan, nor on how many flows there are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, literal, select, union_all

from handrail.visibility.filter import NEWEST_FIRST, Condition, Order, Place
from handrail.visibility.filter.lookups import Search, searches, tested
from handrail.visibility.index import schema
from handrail.visibility.search.walk import Walk, Window

FEW = 2_000
"""Flows that are tested and sorted at once."""

TIME = timedelta(milliseconds=25)
"""How long flows are looked at for a page, about."""

COUNT_TIME = timedelta(milliseconds=10)
"""How long flows are looked at to count them, about."""

_SEARCHES = 6
"""The most searches of which the one that finds least is chosen."""

_SMALLEST, _LARGEST = 500, 50_000
"""The number of flows in a window."""

Rows = Sequence[Row[tuple[object, ...]]]


@dataclass(frozen=True, slots=True)
class Page:
    """Flows in the order of the list. `next` is the place after which the list goes on; None at its end."""

    rows: Rows
    next: Place | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """How many flows there are; `at_least`: there may be more."""

    flows: int
    at_least: bool


class Finder:
    """Finds the flows of a condition. Raises what the database raises."""

    def __init__(self, connection: Connection, condition: Condition) -> None:
        self._connection = connection
        self._condition = condition
        self._searches = searches(condition)[:_SEARCHES]
        self._narrow = self._narrowest()

    def page(self, order: Order, *, size: int, after: Place | None = None, within: timedelta = TIME) -> Page:
        """Returns the flows after a place."""
        few = self.of_few(order, after)
        if few is None:
            return self._walked(order, size=size, after=after, within=within)
        rows = self._connection.execute(few.limit(size + 1)).all()
        return Page(rows) if len(rows) <= size else Page(rows[:size], order.place(rows[size - 1]))

    def of_few(self, order: Order, after: Place | None) -> Select[tuple[object, ...]] | None:
        """The statement for the flows after a place, if few are looked at; None if a window after the other is."""
        narrow = self._narrow
        if narrow is None or (order.is_of_stream and narrow.is_ordered):
            return None
        rest = [] if after is None else [order.after(after)]
        return self._of_few(narrow, *rest).order_by(*order.by())

    def count(self, most: int, *, within: timedelta = COUNT_TIME) -> Count:
        """Counts flows, up to a number."""
        if self._narrow is not None:
            flows = self._counted(self._of_few(self._narrow), most + 1)
            return Count(min(flows, most), flows > most)
        flows = 0
        for window in self._windows(NEWEST_FIRST, None, within):
            flows += self._counted(window.statement.order_by(None), most + 1 - flows)
            if flows > most:
                return Count(most, at_least=True)
            if window.end is None:
                return Count(flows, at_least=False)
        return Count(flows, at_least=True)

    def _narrowest(self) -> Search | None:
        """The search that finds the fewest rows, if these are few."""
        fewest, narrowest = FEW + 1, None
        for search in self._searches:
            some = [select(each.select().limit(fewest).subquery()) for each in search.lookups]
            count = self._counted(union_all(*some).subquery().select(), fewest)
            if count < fewest:
                fewest, narrowest = count, search
        return narrowest

    def _of_few(self, search: Search, *rest: ColumnElement[bool]) -> Select[tuple[object, ...]]:
        found = union_all(*(each.select() for each in search.lookups)).cte("few").prefix_with("MATERIALIZED")
        chosen = schema.flow.c.first_sequence.in_(select(found.c.first_sequence))
        return select(schema.flow).where(and_(chosen, tested(self._condition), *rest))

    def _walked(self, order: Order, *, size: int, after: Place | None, within: timedelta) -> Page:
        rows: list[Row[tuple[object, ...]]] = []
        for window in self._windows(order, after, within):
            rows += self._connection.execute(window.statement.limit(size + 1 - len(rows))).all()
            if len(rows) > size:
                return Page(rows[:size], order.place(rows[size - 1]))
            after = window.end
            if after is None:
                break
        return Page(rows, after)

    def _windows(self, order: Order, after: Place | None, within: timedelta) -> Iterator[Window]:
        """Windows that become larger as long as the time allows; one at least, and none after the last one."""
        found = self._searches if self._narrow is None else [self._narrow]
        walk, end, flows = Walk(self._condition, order, found), time.monotonic() + within.total_seconds(), _SMALLEST
        while True:
            began = time.monotonic()
            window = walk.window(self._connection, after, flows)
            yield window
            after, now = window.end, time.monotonic()
            if after is None or now >= end:
                return
            flows = max(min(4 * flows, int(flows * (end - now) / (now - began)), _LARGEST), _SMALLEST)

    def _counted(self, rows: Select[*tuple[object, ...]], most: int) -> int:
        some = rows.with_only_columns(literal(1).label("one"), maintain_column_froms=True).limit(most).subquery()
        return self._connection.execute(select(func.count()).select_from(some)).scalar_one()
