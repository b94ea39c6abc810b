"""A list has one order, and its pages have each flow once."""

from __future__ import annotations

from datetime import datetime

import pytest
from sqlalchemy import Engine, select

from handrail.mesh.errors import HandrailError
from handrail.visibility.filter import NEWEST_FIRST, Order, Place, parse_order
from handrail.visibility.index.schema import flow as table
from tests.support.filter_examples import population, store
from tests.support.filter_meaning import Flow

FLOWS = population(30)
NAMES = ("started", "updated", "deadline", "first_sequence")


def ordered(flows: list[Flow], order: Order) -> list[int]:
    """The sequences of flows in an order, said in plain Python."""
    places = [(flow.flow.get(order.column), first) for first, flow in enumerate(flows, 1)]
    timed = [(time, first) for time, first in places if isinstance(time, datetime)]
    without = [first for time, first in places if not isinstance(time, datetime)]
    return [
        *(first for _, first in sorted(timed, reverse=order.descending)),
        *sorted(without, reverse=order.descending),
    ]


@pytest.mark.parametrize("size", [1, 2, 7, 100])
@pytest.mark.parametrize("direction", ["", " desc"])
@pytest.mark.parametrize("name", NAMES)
def test_the_pages_of_a_list_have_each_flow_once_in_its_order(
    tables: Engine, name: str, direction: str, size: int
) -> None:
    order = parse_order(name + direction)
    column = table.c[order.column]
    query = select(table.c.first_sequence, column.label("value")).order_by(*order.by()).limit(size)
    listed: list[int] = []
    with tables.connect() as connection:
        store(connection, FLOWS)
        page = connection.execute(query).all()
        while page:
            listed += [row.first_sequence for row in page]
            time = page[-1].value if isinstance(page[-1].value, datetime) else None
            page = connection.execute(query.where(order.after(Place(time, listed[-1])))).all()
        connection.rollback()
    assert listed == ordered(FLOWS, order)


def test_a_list_without_an_order_has_the_newest_first() -> None:
    assert parse_order("  ") == NEWEST_FIRST == parse_order(" started  desc ")


@pytest.mark.parametrize(
    "text, said",
    [
        ("startet", 'there is no order "startet"; did you mean started?'),
        ("started asc", 'there is no order "started asc"; orders are'),
        ("started, updated", 'there is no order "started, updated"; did you mean started?'),
        ("\x1b[2J", 'there is no order "\\x1b[2J"; orders are'),
    ],
)
def test_an_unknown_order_is_refused(text: str, said: str) -> None:
    with pytest.raises(HandrailError) as refused:
        parse_order(text)
    assert refused.value.text.startswith(said)
    assert refused.value.reason_name == "BAD_FILTER"
