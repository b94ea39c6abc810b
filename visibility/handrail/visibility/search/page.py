"""A page of flows that pass a condition, in an order, found within a bounded time.

    page = find(connection, condition, order, size=50)
    page = find(connection, condition, order, size=50, after=page.next)

1. If an index finds few flows, all of them are tested and sorted, unless the index has them in the order of the list.
   How many it finds is counted, up to `FEW`.
2. Otherwise flows are looked at in the order of the list, a window after the other, until the page is full, or the
   time is over. Then the page may be short, or empty, and `next` is the place up to which flows were looked at.

So no answer depends on what the database takes for a good plan, nor on how many flows there are.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, literal, select, union_all

from handrail.visibility.filter import Condition, Order, Place
from handrail.visibility.filter.lookups import Search, searches, tested
from handrail.visibility.index import schema
from handrail.visibility.search.walk import Walk

FEW = 2_000
"""Flows that are tested and sorted at once."""

TIME = timedelta(milliseconds=25)
"""How long flows are looked at for a page, about."""

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


def find(
    connection: Connection,
    condition: Condition,
    order: Order,
    *,
    size: int,
    after: Place | None = None,
    within: timedelta = TIME,
) -> Page:
    """Finds the flows after a place. Raises what the database raises."""
    found = searches(condition)[:_SEARCHES]
    narrow = _narrowest(connection, found)
    if narrow is not None and order.is_of_stream and narrow.is_ordered:
        found = [narrow]
    elif narrow is not None:
        rows = connection.execute(_of_few(narrow, condition, order, after).limit(size + 1)).all()
        return Page(rows) if len(rows) <= size else Page(rows[:size], order.place(rows[size - 1]))
    return _walked(connection, Walk(condition, order, found), size=size, after=after, within=within)


def _narrowest(connection: Connection, found: Sequence[Search]) -> Search | None:
    """The search that finds the fewest rows, if these are few."""
    fewest, narrowest = FEW + 1, None
    for search in found:
        count = 0
        for lookup in search.lookups:
            some = lookup.select().with_only_columns(literal(1).label("one")).limit(fewest - count).subquery()
            count += connection.execute(select(func.count()).select_from(some)).scalar_one()
            if count >= fewest:
                break
        else:
            fewest, narrowest = count, search
    return narrowest


def _of_few(search: Search, condition: Condition, order: Order, after: Place | None) -> Select[tuple[object, ...]]:
    lookups = [each.select() for each in search.lookups]
    found = (union_all(*lookups) if len(lookups) > 1 else lookups[0]).cte("few").prefix_with("MATERIALIZED")
    rest: list[ColumnElement[bool]] = [] if after is None else [order.after(after)]
    chosen = schema.flow.c.first_sequence.in_(select(found.c.first_sequence))
    return select(schema.flow).where(and_(chosen, tested(condition), *rest)).order_by(*order.by())


def _walked(connection: Connection, walk: Walk, *, size: int, after: Place | None, within: timedelta) -> Page:
    end = time.monotonic() + within.total_seconds()
    rows: list[Row[tuple[object, ...]]] = []
    place, flows = after, _SMALLEST
    while True:
        began = time.monotonic()
        window = walk.window(connection, place, flows)
        rows += connection.execute(window.statement.limit(size + 1 - len(rows))).all()
        if len(rows) > size:
            return Page(rows[:size], walk.order.place(rows[size - 1]))
        if window.end is None:
            return Page(rows)
        place, now = window.end, time.monotonic()
        if now >= end:
            return Page(rows, place)
        flows = max(min(4 * flows, int(flows * (end - now) / (now - began)), _LARGEST), _SMALLEST)
