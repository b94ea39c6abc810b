"""Filters that people use daily are answered from an index, at any number of flows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, Select, create_engine, event, select

from handrail.visibility.filter import Place, check, parse, parse_order, where
from handrail.visibility.filter.lookups import searches
from handrail.visibility.index import schema
from handrail.visibility.search.page import Finder
from handrail.visibility.search.walk import Walk
from tests.support.filter_examples import SCOPE

ALL_OF_A_TYPE = "SEARCH flow USING INDEX flow_by_type (flow_type=?)"


def plan(text: str, order_by: str = "") -> str:
    """How SQLite finds the first page of a list."""
    order = parse_order(order_by)
    query = select(schema.flow).where(where(check(parse(text), SCOPE))).order_by(*order.by()).limit(50)
    with empty_index() as connection:
        return explained(connection, query)


@contextmanager
def empty_index() -> Iterator[Connection]:
    with create_engine("sqlite+pysqlite://").connect() as connection:
        schema.metadata.create_all(connection)
        yield connection


def explained(connection: Connection, query: Select[*tuple[object, ...]]) -> str:
    """The plan of a statement as it is executed."""

    def explain(_connection: object, _cursor: object, statement: str, values: object, *_: object) -> tuple[str, object]:
        return f"EXPLAIN QUERY PLAN {statement}", values

    event.listen(connection, "before_cursor_execute", explain, retval=True, once=True)
    cursor = connection.execute(query).cursor
    assert cursor is not None
    return "\n".join(row[3] for row in cursor.fetchall())


@pytest.mark.parametrize(
    "text, index",
    [
        ("status = FAILED", "flow_by_status (status=?)"),
        ("flow_type = refund status = FAILED", "flow_by_type_and_status (flow_type=? AND status=?)"),
        ("flow_type = refund", "flow_by_type (flow_type=?)"),
        ("requester = anna", "flow_by_requester (requester=?)"),
        ("flow_id = 00ff*", "flow_by_id (flow_id>? AND flow_id<?)"),
        ("flow_type = refund flow_id = 00ff", "flow_by_id (flow_id=?)"),
        ("flow_type = refund AND key = 17", "flow_by_id (flow_id=?)"),
        ("flow_type = refund (key = 17 OR key = 18)", "flow_by_id (flow_id=?)"),
        ("country = DE", "attribute_by_text (name=? AND text=?)"),
        ('country = "D*"', "attribute_by_text (name=? AND text>? AND text<?)"),
        ("amount = 17", "attribute_by_number (name=? AND number=?)"),
        ("agent = ledger", "owed_by_agent (agent=?)"),
        ("error_class = Timeout", "failure_by_class (error_class=?)"),
        ("waiting", "approval_by_status (status=?)"),
        ("stuck", "SCAN escalation"),
        ("flow_type = refund stuck", "SCAN escalation"),
    ],
)
def test_an_index_finds_what_a_filter_names(text: str, index: str) -> None:
    steps = plan(text).splitlines()
    assert any(index in step for step in steps)
    assert not [step for step in steps if step.startswith("SCAN flow") or (step == ALL_OF_A_TYPE and index not in step)]


@pytest.mark.parametrize(
    "text, order_by",
    [
        *((text, "started desc") for text in ("", "status = FAILED", "flow_type = refund", "amount > 17", "age > 2h")),
        *((text, "started") for text in ("", "requester = anna", "country = DE")),
    ],
)
def test_a_page_in_the_order_of_the_stream_sorts_nothing(text: str, order_by: str) -> None:
    assert "TEMP B-TREE" not in plan(text, order_by)
    assert "TEMP B-TREE" in plan("requester = anna", "deadline")


@pytest.mark.parametrize("order_by", ["updated", "updated desc"])
def test_the_order_of_updates_comes_from_an_index(order_by: str) -> None:
    steps = plan("", order_by)
    assert "USING INDEX flow_by_update" in steps
    assert "FOR ORDER BY" not in steps


@pytest.mark.parametrize(
    "text, order_by, index",
    [
        ("status = COMPLETED", "updated desc", "flow_by_update (updated>? AND updated<?)"),
        ("flow_type = refund country = DE", "updated", "flow_by_update (updated>?)"),
        ("requester = anna stuck", "deadline", "flow_by_deadline (deadline>?)"),
        ("status = RUNNING", "updated", "flow_open_by_update (updated>?)"),
        (
            "status = RUNNING OR status = ESCALATED",
            "deadline desc",
            "flow_open_by_deadline (deadline>? AND deadline<?)",
        ),
        ("NOT ended:* word", "updated desc", "flow_open_by_update (updated>? AND updated<?)"),
        ("version = 1", "started desc", "INTEGER PRIMARY KEY (rowid<?)"),
        ("status = FAILED version = 1", "started", "flow_by_status (status=? AND first_sequence>?)"),
        ("country = DE requester: x", "started desc", "attribute_by_text (name=? AND text=? AND first_sequence<?)"),
        ("stuck", "started desc", "escalation USING PRIMARY KEY (first_sequence<?)"),
        ("retrying", "started", "flow_retrying (first_sequence>?)"),
    ],
)
def test_what_a_page_looks_at_comes_from_an_index_in_its_order(text: str, order_by: str, index: str) -> None:
    order, condition = parse_order(order_by), check(parse(text), SCOPE)
    with empty_index() as connection:
        after = Place(None if order.is_of_stream else SCOPE.now, 7)
        window = Walk(condition, order, searches(condition)).window(connection, after, 100)
        steps = explained(connection, window.statement)
    assert index in steps
    assert "SCAN flow" not in steps


@pytest.mark.parametrize("order_by", ["updated", "updated desc", "deadline", "deadline desc"])
def test_a_window_by_a_time_sorts_no_more_than_equal_times(order_by: str) -> None:
    condition = check(parse("status = COMPLETED"), SCOPE)
    with empty_index() as connection:
        window = Walk(condition, parse_order(order_by), []).window(connection, Place(SCOPE.now, 7), 100)
        assert "TEMP B-TREE" not in explained(connection, window.statement)


@pytest.mark.parametrize("text", ["flow_type = refund key = 17", "status = FAILED stuck", "agent = ledger"])
def test_if_few_flows_are_found_nothing_else_is_looked_at(text: str) -> None:
    with empty_index() as connection:
        finder = Finder(connection, check(parse(text), SCOPE))
        query = finder.of_few(parse_order("deadline desc"), Place(SCOPE.now, 7))
        assert query is not None
        steps = [each for each in explained(connection, query).splitlines() if " flow " in each]
    assert steps == ["SEARCH flow USING INTEGER PRIMARY KEY (rowid=?)"]
