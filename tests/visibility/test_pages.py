"""The pages of a list together are what its filter means, in its order, however little each page looks at."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine

from handrail.visibility.filter import NEWEST_FIRST, Condition, Order, check, parse, parse_order, text_of
from handrail.visibility.filter.syntax import Node
from handrail.visibility.search import page as pages
from handrail.visibility.search.page import Count, Finder
from tests.support.filter_examples import CONDITIONS, FILTERS, SCOPE, population, store
from tests.support.filter_meaning import holds

FLOWS = population(80)
ORDERS = [f"{name}{direction}" for name in ("started", "updated", "deadline") for direction in ("", " desc")]
SHARED = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def stored(tables: Engine) -> Iterator[Connection]:
    """A connection that sees FLOWS."""
    with tables.connect() as connection:
        store(connection, FLOWS)
        yield connection
        connection.rollback()


@pytest.fixture(params=[0, 10, 1000], ids=lambda few: f"few={few}")
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of seven flows; and how many flows are tested at once."""
    monkeypatch.setattr(pages, "FEW", request.param)
    monkeypatch.setattr(pages, "_SMALLEST", 7)


def listed(connection: Connection, condition: Condition, order: Order, *, size: int, within: timedelta) -> list[int]:
    """All pages of a list."""
    flows: list[int] = []
    finder = Finder(connection, condition)
    page = finder.page(order, size=size, within=within)
    for _ in range(200):
        assert len(page.rows) <= size
        flows += [row.first_sequence for row in page.rows]
        if page.next is None:
            return flows
        page = finder.page(order, size=size, after=page.next, within=within)
    raise AssertionError("the list does not end")


def meant(node: Node, order: Order) -> list[int]:
    """The flows for which a filter holds, in an order, said in plain Python."""
    chosen = [(flow.flow.get(order.column), first) for first, flow in enumerate(FLOWS, 1) if holds(node, flow)]
    timed = [(time, first) for time, first in chosen if isinstance(time, datetime)]
    without = [first for time, first in chosen if not isinstance(time, datetime)]
    return [
        *(first for _, first in sorted(timed, reverse=order.descending)),
        *sorted(without, reverse=order.descending),
    ]


@pytest.mark.usefixtures("few")
def test_pages_are_what_a_condition_means(stored: Connection) -> None:
    chance = random.Random(1)
    for node in chance.sample(CONDITIONS, 60):
        order, size = parse_order(chance.choice(ORDERS)), chance.choice((5, 100))
        within = timedelta(seconds=chance.choice((0, 10)))
        found = listed(stored, check(node, SCOPE), order, size=size, within=within)
        assert found == meant(node, order), f"{text_of(node)} by {order}, {size} at a time"


@pytest.mark.usefixtures("few")
@SHARED
@given(node=FILTERS, order_by=st.sampled_from(ORDERS), size=st.sampled_from((5, 100)), seconds=st.sampled_from((0, 10)))
def test_pages_are_what_a_filter_means(stored: Connection, node: Node, order_by: str, size: int, seconds: int) -> None:
    order = parse_order(order_by)
    found = listed(stored, check(node, SCOPE), order, size=size, within=timedelta(seconds=seconds))
    assert found == meant(node, order)


@pytest.mark.parametrize("order_by", ORDERS)
def test_a_page_ends_when_its_time_is_over(stored: Connection, order_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_SMALLEST", 7)
    nothing = check(parse('requester = "*nobody*"'), SCOPE)
    page = Finder(stored, nothing).page(parse_order(order_by), size=50, within=timedelta())
    assert page.rows == []
    assert page.next is not None, "there are flows that were not looked at"
    assert Finder(stored, nothing).count(10, within=timedelta()) == Count(0, at_least=True)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("most", [3, 100])
def test_flows_are_counted_up_to_a_number(stored: Connection, most: int) -> None:
    for node in random.Random(2).sample(CONDITIONS, 60):
        flows = len(meant(node, NEWEST_FIRST))
        found = Finder(stored, check(node, SCOPE)).count(most, within=timedelta(seconds=10))
        assert found == Count(min(flows, most), at_least=flows > most), text_of(node)
