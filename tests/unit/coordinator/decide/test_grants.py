"""Grants: how they are written, what a role implies, and what the claims of a token grant."""

from __future__ import annotations

from typing import Any

import pytest

from handrail.coordinator.api.claims import caller_of
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.grants import ROLES, Grant, of_roles, parsed
from handrail.mesh.errors import HandrailError


def caller(*grants: str) -> Caller:
    return Caller("kim", frozenset(map(parsed, grants)))


def claimed(**claims: Any) -> Caller:
    return caller_of({"sub": "kim", **claims})


@pytest.mark.parametrize(
    "text", [f"{role}@{scope}" for role in (*ROLES, "approver.finance") for scope in ("a-b_1", "*")]
)
def test_a_grant_is_a_role_and_a_flow_type(text: str) -> None:
    role, _, flow_type = text.partition("@")
    assert parsed(text) == Grant(role, flow_type)
    assert str(parsed(text)) == text


@pytest.mark.parametrize(
    "text, problem",
    [
        ("operator", "it is not <role>@<flow type>"),
        ("", "it is not <role>@<flow type>"),
        ("operator@", "the part after"),
        ("operator@**", "the part after"),
        ("operator@re*", "the part after"),
        ("operator@Refund", "the part after"),
        ("operator@refund\n", "the part after"),
        (f"operator@{'x' * 64}", "the part after"),
        ("@refund", "the role must be one of reader, "),
        ("Operator@refund", "the role must be one of"),
        ("finance@refund", "the role must be one of"),
        ("approver@refund", "the role must be one of"),
        ("approver.@refund", "the role must be one of"),
        ("approver.fin\nance@refund", "the role must be one of"),
        (f"approver.{'x' * 129}@refund", "the role must be one of"),
    ],
)
def test_what_is_no_grant_says_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parsed(text)


def test_the_role_of_an_approver_may_be_any_that_a_gate_names() -> None:
    assert caller("approver.head of sales@north@refund").approver_roles("refund") == {"head of sales@north"}


def test_a_role_holds_on_its_flow_type_alone() -> None:
    kim = caller("operator@refund")
    assert kim.holds("operator", "refund")
    assert not kim.holds("operator", "refunds")
    assert not kim.holds("operator", "*"), "only a grant on every flow type covers the whole installation"
    assert kim.holds_somewhere("operator")
    assert not kim.holds_somewhere("starter"), "no role implies another but reader"
    assert caller("operator@*").holds("operator", "*")


@pytest.mark.parametrize("role", [*ROLES, "approver.finance"])
def test_every_role_includes_reading_on_the_same_flow_type(role: str) -> None:
    kim = caller(f"{role}@refund")
    assert kim.reads("refund")
    assert not kim.reads("audit")


def test_an_approvers_role_counts_on_its_flow_type_alone() -> None:
    kim = caller("approver.finance@refund", "approver.legal@*", "operator@refund")
    assert kim.approver_roles("refund") == {"finance", "legal"}
    assert kim.approver_roles("audit") == {"legal"}


def test_a_token_without_grants_may_read_and_has_its_roles_on_every_flow_type() -> None:
    assert claimed().grants == {Grant("reader", "*")}
    olga = claimed(roles=["operator"])
    for role in ("operator", "starter", "template_admin", "quarantine_reader", "reader"):
        assert olga.holds(role, "*"), role
    assert not olga.holds("breakglass", "refund")
    assert olga.approver_roles("refund") == {"operator"}
    assert claimed(roles=["finance"]).approver_roles("refund") == {"finance"}
    assert claimed(roles=["viewer"]).holds("quarantine_reader", "*")
    assert not claimed(roles=["template_admin", "breakglass"]).holds_somewhere("template_admin")


def test_a_token_with_grants_has_these_alone() -> None:
    assert claimed(handrail=[]).grants == frozenset()
    assert claimed(handrail=["operator@refund"], roles=[]).grants == {Grant("operator", "refund")}
    both = claimed(handrail=["operator@refund"], roles=["finance"])
    assert both.grants == {Grant("operator", "refund")} | of_roles(["finance"])


def test_a_malformed_grant_refuses_the_token_and_is_not_printed_raw() -> None:
    with pytest.raises(HandrailError) as refusal:
        claimed(handrail=["reader@*", "operator@\x1b[31m" + "x" * 1000])
    assert refusal.value.reason_name == "UNAUTHENTICATED"
    assert refusal.value.text.startswith("the token's \"handrail\" has the entry 'operator@\\x1b[31mxxx")
    assert len(refusal.value.text) < 300
