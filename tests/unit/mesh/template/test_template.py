"""A compiled template answers what the fold and the SDK ask, with the defaults of its contract."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import HandrailError, PolicyError
from handrail.mesh.template import (
    APPROVAL_REFUSED,
    STEP_COMPLETED,
    RetrySpec,
    Template,
    load_yaml,
)
from handrail.v1 import template_pb2 as pb
from handrail.v1.decision_pb2 import RuleAction
from payments.v1 import payments_pb2
from tests.support.shop import shop
from tests.unit.mesh.template.test_yaml_reader import REFUND

CONTRACTS = Contracts.from_messages([payments_pb2.RefundPaid])
REFUND_PROTO = load_yaml(REFUND.read_text())
TEMPLATE = Template.compile(REFUND_PROTO, CONTRACTS)

SHOP = """\
name: order
version: 1
starts_with: [shop.v1.Asked]
completes_with: [shop.v1.Done]
deadline: 60s
steps:
  - {name: split, agent: a, after: [shop.v1.Asked], emits: [shop.v1.Part], effect: NONE, timeout: 5s}
  - name: merge
    agent: b
    after_all: [{type: shop.v1.Part, count: "latest['shop.v1.Asked'].parts"}]
    emits: [shop.v1.Done]
    effect: NONE
    timeout: 5s
  - {name: audit, agent: c, after: [shop.v1.Asked], effect: NONE, timeout: 5s}
gates:
  - name: any
    on: shop.v1.Part
    approvers: {roles: [boss], requester_field: by.name}
    on_expiry: WAIT
    expires_after: 5s
rules:
  - {name: many, on: [shop.v1.Part, shop.v1.Done], when: "flow.counts['shop.v1.Part'] > 3", then: FAIL}
"""
SHOP_CONTRACTS = shop(
    Asked={"parts": "int64"}, Part={"by": "shop.v1.Person"}, Done={}, Person={"name": "string"}, Other={"x": "int64"}
)


def test_steps_are_found_by_what_triggers_them() -> None:
    def triggered(name: str) -> list[str]:
        return [step.name for step in TEMPLATE.triggered_by(name)]

    assert triggered("payments.v1.ChargebackReceived") == ["enrich"]
    assert triggered("payments.v1.LargeRefundGranted") == ["pay"]
    assert triggered(APPROVAL_REFUSED) == ["notify"]
    assert triggered("payments.v1.CustomerNotified") == []


def test_steps_are_found_by_what_they_emit() -> None:
    assert [step.name for step in TEMPLATE.emitters_of("payments.v1.SmallRefundGranted")] == ["grant"]
    assert TEMPLATE.emitters_of("payments.v1.ChargebackReceived") == ()


def test_gates_are_found_by_what_they_guard() -> None:
    (gate,) = TEMPLATE.gates_on("payments.v1.LargeRefundGranted")
    assert (gate.name, gate.roles, gate.quorum) == ("large_refund", frozenset({"finance"}), 2)
    assert (gate.expires_after, gate.on_expiry) == (timedelta(hours=4), pb.EXPIRY_ACTION_REJECT)
    assert gate.not_the_requester
    assert TEMPLATE.gates_on("payments.v1.SmallRefundGranted") == ()


def test_joins_and_rules_are_found_by_their_events() -> None:
    template = Template.compile(load_yaml(SHOP), SHOP_CONTRACTS)
    assert [step.name for step in template.joins_on("shop.v1.Part")] == ["merge"]
    assert template.triggered_by("shop.v1.Part") == ()
    assert [rule.then for rule in template.rules_on("shop.v1.Done")] == [RuleAction.RULE_ACTION_FAIL]
    (join,) = template.steps["merge"].joins
    assert join.count.evaluate({"shop.v1.Asked": SHOP_CONTRACTS.message_class("shop.v1.Asked")(parts=4)}) == 4
    assert template.steps["merge"].waits_for == {"shop.v1.Part"}


def test_a_step_that_names_no_outcome_answers_with_its_completion() -> None:
    template = Template.compile(load_yaml(SHOP), SHOP_CONTRACTS)
    assert template.steps["audit"].emits == {STEP_COMPLETED}


def test_what_a_template_leaves_out_is_filled_in() -> None:
    template = Template.compile(load_yaml(SHOP), SHOP_CONTRACTS)
    step, gate = template.steps["split"], template.gates["any"]
    assert step.retry == RetrySpec(
        max_attempts=1,
        initial_backoff=timedelta(seconds=1),
        multiplier=2.0,
        max_backoff=timedelta(seconds=60),
    )
    assert (step.effect, step.on_failure, step.undo) == (pb.EFFECT_NONE, pb.FAILURE_ACTION_ESCALATE, None)
    assert (gate.quorum, gate.on_reject, gate.when) == (1, pb.REJECT_ACTION_CONTINUE, None)
    assert not template.parallel_undo


def test_a_gate_that_waits_has_no_expiry() -> None:
    gate = Template.compile(load_yaml(SHOP), SHOP_CONTRACTS).gates["any"]
    assert (gate.on_expiry, gate.expires_after) == (pb.EXPIRY_ACTION_WAIT, None)


@pytest.mark.parametrize(
    "part, field, enum",
    [
        ("steps", "effect", "Effect"),
        ("steps", "on_failure", "FailureAction"),
        ("gates", "on_expiry", "ExpiryAction"),
        ("gates", "on_reject", "RejectAction"),
        ("rules", "then", "RuleAction"),
    ],
)
def test_a_value_of_a_later_contract_is_not_taken_for_another(part: str, field: str, enum: str) -> None:
    proto = load_yaml(SHOP)
    setattr(getattr(proto, part)[0], field, 99)
    with pytest.raises(ValueError, match=rf"^handrail\.v1\.{enum} has no value 99$"):
        Template.compile(proto, SHOP_CONTRACTS)


def test_a_gate_reads_the_requester_from_the_proposal() -> None:
    gate = Template.compile(load_yaml(SHOP), SHOP_CONTRACTS).gates["any"]
    part = SHOP_CONTRACTS.message_class("shop.v1.Part")
    assert gate.requester(part(by={"name": "ann"})) == "ann"
    assert gate.requester(part()) == ""


def test_an_undo_reports_what_the_template_says_or_its_completion() -> None:
    undo = TEMPLATE.steps["pay"].undo
    assert undo is not None
    assert undo.emits == {"payments.v1.RefundReversed", STEP_COMPLETED}
    assert undo.retry.max_attempts == 5


def test_a_type_that_the_contracts_lack_is_refused() -> None:
    with pytest.raises(HandrailError) as caught:
        Template.compile(load_yaml(SHOP.replace("shop.v1.Done", "shop.v1.Over")), SHOP_CONTRACTS)
    assert caught.value.reason_name == "UNKNOWN_MESSAGE_TYPE"


def test_an_expression_that_does_not_compile_is_refused() -> None:
    with pytest.raises(PolicyError):
        Template.compile(load_yaml(SHOP.replace("> 3", "> '3'")), SHOP_CONTRACTS)


# --- Digest ---


def test_the_same_content_has_the_same_digest_whoever_wrote_the_descriptors() -> None:
    stored = Contracts.from_descriptor_set(TEMPLATE.descriptor_set)
    assert Template.compile(REFUND_PROTO, stored).digest == TEMPLATE.digest
    assert TEMPLATE.digest == Template.compile(REFUND_PROTO, CONTRACTS).digest


def test_the_digest_follows_from_template_and_definitions() -> None:
    template = Template.compile(load_yaml(SHOP), SHOP_CONTRACTS)
    serialised = template.proto.SerializeToString(deterministic=True)
    definitions = bytes.fromhex(SHOP_CONTRACTS.fingerprint(template.message_types))
    assert template.digest == hashlib.sha256(serialised + definitions).hexdigest()


def test_another_template_or_another_contract_has_another_digest() -> None:
    base = Template.compile(load_yaml(SHOP), SHOP_CONTRACTS).digest
    longer = Template.compile(load_yaml(SHOP.replace("60s", "61s")), SHOP_CONTRACTS).digest
    fields = {"Asked": {"parts": "int64"}, "Part": {"by": "shop.v1.Person"}, "Done": {}}
    more = Template.compile(load_yaml(SHOP), shop(**fields, Person={"name": "string", "age": "int64"})).digest
    unrelated = Template.compile(load_yaml(SHOP), shop(**fields, Person={"name": "string"}, Other={})).digest
    assert len({base, longer, more}) == 3
    assert unrelated == base


def test_the_stored_descriptors_suffice_to_compile_again() -> None:
    template = Template.compile(load_yaml(SHOP), SHOP_CONTRACTS)
    again = Template.compile(template.proto, Contracts.from_descriptor_set(template.descriptor_set))
    assert again.message_types == template.message_types


# --- Backoff ---


def test_the_wait_grows_up_to_its_bound() -> None:
    retry = RetrySpec(max_attempts=9, max_backoff=timedelta(seconds=5))
    assert [retry.backoff(failed).total_seconds() for failed in (1, 2, 3, 4, 5)] == [1, 2, 4, 5, 5]


@given(
    failed=st.integers(0, 10_000),
    multiplier=st.floats(0.01, 100),
    initial=st.integers(0, 10**9),
    bound=st.integers(0, 10**9),
)
def test_the_wait_is_never_negative_and_never_above_its_bound(
    failed: int, multiplier: float, initial: int, bound: int
) -> None:
    retry = RetrySpec(
        multiplier=multiplier,
        initial_backoff=timedelta(microseconds=initial),
        max_backoff=timedelta(microseconds=bound),
    )
    assert timedelta() <= retry.backoff(failed) <= timedelta(microseconds=bound)


def test_a_wait_of_nothing_is_written_as_zero() -> None:
    step = pb.Step(retry=pb.Retry(max_attempts=3, initial_backoff=Duration()))
    template = pb.FlowTemplate(steps=[step])
    compiled = Template.compile(template, CONTRACTS).steps[""]
    assert compiled.retry.backoff(2) == timedelta()
