"""Filters that people use daily are answered from an index, at any number of flows."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, select

from handrail.visibility.filter import check, parse, parse_order, where
from handrail.visibility.index import schema
from tests.support.filter_examples import SCOPE

ALL_OF_A_TYPE = "SEARCH flow USING INDEX flow_by_type (flow_type=?)"


def plan(text: str, order_by: str = "") -> str:
    """How SQLite finds the first page of a list."""
    engine = create_engine("sqlite+pysqlite://")
    order = parse_order(order_by)
    query = select(schema.flow).where(where(check(parse(text), SCOPE))).order_by(*order.by()).limit(50)
    with engine.connect() as connection:
        schema.metadata.create_all(connection)
        compiled = query.compile(engine, compile_kwargs={"literal_binds": True})
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}")
        return "\n".join(row.detail for row in rows)


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
    assert "TEMP B-TREE" in plan(text, "deadline")


@pytest.mark.parametrize("order_by", ["updated", "updated desc"])
def test_the_order_of_updates_comes_from_an_index(order_by: str) -> None:
    steps = plan("", order_by)
    assert "USING INDEX flow_by_update" in steps
    assert "FOR ORDER BY" not in steps
