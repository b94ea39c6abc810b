"""Filters as chips: what stands beside each other can be taken away; anything else stays a text."""

from __future__ import annotations

import pytest

from handrail.console.flows import chips


@pytest.mark.parametrize(
    "text, found",
    [
        ("", []),
        ("stuck", ["stuck"]),
        ("stuck flow_type = refund", ["stuck", "flow_type = refund"]),
        ("stuck AND age > 2h", ["stuck", "age > 2h"]),
        ('chargeback_id = "cb 1" -retrying', ['chargeback_id = "cb 1"', "-retrying"]),
        ('NOT overdue key="a\\"b"', ["NOT overdue", 'key="a\\"b"']),
        ("updated < 2026-11-28T10:00:00Z", ["updated < 2026-11-28T10:00:00Z"]),
        ("ended:*", ["ended:*"]),
    ],
)
def test_conditions_beside_each_other_are_told_apart(text: str, found: list[str]) -> None:
    assert chips.conditions(text) == found


@pytest.mark.parametrize("text", ["a OR b", "(a b)", "a AND", "a = (b)", 'a = "b', "a ! b", "= b", "NOT"])
def test_any_other_filter_stays_a_text(text: str) -> None:
    assert chips.conditions(text) == []
    assert chips.offered(text) == []


def test_a_chip_leads_to_the_filter_without_it() -> None:
    assert chips.active("stuck AND age > 2h") == [("stuck", "age > 2h"), ("age > 2h", "stuck")]


def test_an_offered_chip_adds_its_condition_once() -> None:
    added = dict(chips.offered("flow_type = refund"))
    assert added["Needs a person"] == "flow_type = refund stuck"
    assert "Needs a person" not in dict(chips.offered("stuck"))


@pytest.mark.parametrize("_, condition", chips.OFFERED)
def test_what_is_offered_is_a_condition(_: str, condition: str) -> None:
    assert chips.conditions(condition) == [condition]
