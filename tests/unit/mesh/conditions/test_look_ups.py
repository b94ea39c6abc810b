"""What stands for `event`, `flow.first` and look-ups keeps the meaning of what was written."""

from __future__ import annotations

import pytest

from handrail.mesh.conditions.expression import Expression
from handrail.mesh.conditions.look_ups import FLOW_TABLES, with_typed_names
from handrail.mesh.errors import PolicyError
from tests.support.shop import shop

ASKED = "shop.v1.Asked"
CONTRACTS = shop(Asked={"n": "int64", "s": "string", "ns": "repeated int64", "event": "int64", "d": "double"})
EVENT = CONTRACTS.message_class(ASKED)(n=3, s="flow.first", ns=[1, 2], event=7, d=1.5)


def compiled(text: str) -> Expression:
    return Expression.compile(
        text, contracts=CONTRACTS, event_type=ASKED, first_type=ASKED, tables=FLOW_TABLES, types=[ASKED]
    )


@pytest.mark.parametrize(
    "text",
    [
        "event.n == 3 && flow.first.n == 3",
        "event.event == 7 && flow . first . event == 7",
        "event.ns.map(event, event + 1) == [2, 3]",
        "event.ns.map(flow, flow + 1) == [2, 3] && flow.first.n == 3",
        "[event].map(flow, flow.n) == [3]",
        "[{'first': 5}].all(flow, flow.first == 5)",
        "event.ns.map(_e0, _e0 + event.n) == [4, 5]",
        "shop.v1.Asked{event: 7}.event == event.event",
        "{event.n: event.s}[3] == 'flow.first'",
        "event.n > 1 ? event.s == \"flow.first\" : event.s == 'event'",
        "event.s == 'flow.first' // event and flow.first",
        "has(event.s) && event in [event] && flow.first == event",
        "flow.latest['shop.v1.Asked'].event == 7 && flow.facts['shop.v1.Asked'].map(event, event.event) == [7]",
    ],
)
def test_names_mean_what_they_meant(text: str) -> None:
    expression = compiled(text)
    tables = {fact.variable: [EVENT] if fact.table == "flow.facts" else EVENT for fact in expression.facts}
    assert expression.evaluate({"event": EVENT, "flow.first": EVENT, **tables}) is True


@pytest.mark.parametrize("text", ["_e0.n > 1", "_s0.n > 1", "_f0.size() > 0", "_c0 > 0", "flow.n > 1", "flow == event"])
def test_the_variables_behind_the_names_can_not_be_named(text: str) -> None:
    with pytest.raises(PolicyError, match="undeclared reference"):
        compiled(text)


@pytest.mark.parametrize(
    "text, place",
    [
        ("event.nothing > 1", "line 1, column 6: undefined field 'nothing'"),
        ("flow.first.n > 1 &&\n  flow.first.nothing", "line 2, column 13: undefined field 'nothing'"),
        ("true && event + 1 > 2", "line 1, column 15: found no matching overload for '_\\+_'"),
    ],
)
def test_errors_name_the_place_in_what_was_written(text: str, place: str) -> None:
    with pytest.raises(PolicyError, match=place) as caught:
        compiled(text)
    assert "_e0" not in caught.value.text
    assert "_s0" not in caught.value.text


def test_a_number_that_is_not_finite_is_told_by_the_name_that_was_written() -> None:
    bad = CONTRACTS.message_class(ASKED)(d=float("nan"))
    with pytest.raises(PolicyError, match=r"event\.d is nan"):
        compiled("event.d > 1.0").evaluate({"event": bad})


def test_expressions_of_a_template_share_an_environment_unless_their_names_are_odd() -> None:
    typed = with_typed_names("event.n > flow.first.n", "event.n > flow.first.n", 2, 31)
    assert typed == "_e2  .n > _s31      .n"
    assert with_typed_names("flow.elapsed > x", "flow.elapsed > x", 2, 31) is not None
    for odd in ("[1].all(flow, flow > 0)", "_e1 > 0", "flow"):
        assert with_typed_names(odd, odd, 2, 31) is None
    assert with_typed_names("event.n", "event.n", 1000, None) is None
