"""What a version takes away is said before somebody confirms it; what it only adds is not."""

from __future__ import annotations

from typing import Any

import pytest

from handrail.analysis.diff.template_diff import diff
from handrail.analysis.diff.weakening import weakened
from handrail.mesh.template import Template
from tests.support import orders

OLD = {"flow__require_two": ["CANCEL", "MIGRATE"]}


def version(**changes: Any) -> Template:
    return orders.load("order", **{**OLD, **changes})


def test_nothing_is_weaker_than_itself() -> None:
    assert weakened(version(), version()) == []


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"flow__gates": []}, "Gate big_discount is gone"),
        ({"flow__rules": []}, "Rule risky is gone"),
        ({"big_discount__when": "event.percent > 50"}, "above 50 instead of 10"),
        ({"big_discount__when": "event.percent > 10 && event.share > 2.0"}, "Gate big_discount asks"),
        ({"big_discount__approvers__quorum": 1}, "needs one person to approve instead of two people"),
        ({"big_discount__approvers__roles": ["operator"]}, "takes votes of operator instead of sales_lead"),
        ({"big_discount__approvers__not_the_requester": "false"}, "the requester may vote too"),
        ({"big_discount__on_expiry": "APPROVE"}, "it counts as approved"),
        ({"risky__when": "flow.latest['shop.v1.OrderPlaced'].risk > 9"}, "less often"),
        ({"risky__on": ["shop.v1.OrderPlaced"]}, "no longer looks at StockReserved"),
        ({"risky__then": "COMPLETE"}, "the flow ends as completed"),
        ({"flow__require_two": ["CANCEL"]}, None),
        ({"flow__require_two": ["MIGRATE"]}, "One person is enough for CANCEL"),
        ({"flow__require_two": []}, "One person is enough for CANCEL and MIGRATE"),
    ],
)
def test_p6_what_a_version_weakens_is_said(changes: dict[str, Any], said: str | None) -> None:
    told = weakened(version(), version(**changes))
    assert [said in text for text in told] == [True] if said else told == []


@pytest.mark.parametrize(
    "changes",
    [
        {"big_discount__when": "event.percent > 5"},
        {"big_discount__when": ""},
        {"big_discount__approvers__quorum": 3},
        {"big_discount__on_expiry": "WAIT"},
        {"big_discount__on_reject": "FAIL"},
        {"risky__when": "flow.latest['shop.v1.OrderPlaced'].risk > 5", "pay__timeout": "5s"},
        {"flow__require_two": ["CANCEL", "RETRY"]},
    ],
)
def test_what_asks_for_as_much_or_more_is_no_warning(changes: dict[str, Any]) -> None:
    assert weakened(version(), version(**changes)) == []


def test_a_diff_names_what_needs_two_persons() -> None:
    texts = [change.text for change in diff(orders.load("order"), version())]
    assert texts == ["CANCEL needs two persons.", "MIGRATE needs two persons."]
    shorter = diff(version(), version(flow__confirm_within="60s"))
    assert [change.text for change in shorter] == ["A second person has 1 min instead of 24 h to confirm."]
