"""`decide`: one message at a time, nothing too early, nothing twice, nothing for what is over."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest

from handrail.coordinator.decide import decide, messages
from handrail.mesh.fold import fold
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import check_agreement, from_timestamp
from handrail.mesh.wire.subjects import Kind
from handrail.v1.decision_pb2 import ApprovalRefused, ApprovalRequested, Escalated, FlowHalted, HaltMode, RuleTripped
from tests.support.orders import (
    begun,
    effect_of,
    emit,
    granted,
    load,
    paid,
    proposal_of,
    reserved,
    run_of,
    sent,
    types,
)
from tests.support.simulation import Simulation

MOMENT = timedelta(microseconds=1)


def quiet(simulation: Simulation) -> Simulation:
    """The same flow with nobody coordinating it."""
    simulation.coordinator = False
    return simulation


def test_nothing_is_decided_before_a_flow_begins_or_after_it_ends() -> None:
    assert decide(Simulation(load("order")).flow, begun().now) is None
    ended = begun(risk=9, risky__then="FAIL")
    assert decide(ended.flow, ended.now + timedelta(days=9)) is None


def test_p1_nothing_is_decided_about_a_happy_flow() -> None:
    for make_flow in (begun, reserved, granted, paid, sent):
        simulation = make_flow()
        assert decide(simulation.flow, simulation.now) is None


def test_p2_the_same_flow_gives_the_same_decision_whoever_decides() -> None:
    simulation = quiet(reserved())
    simulation.say(simulation.failed(run_of(simulation, "discount"), "no", retryable=False))
    first = decide(simulation.flow, simulation.now)
    second = decide(fold(simulation.template, simulation.history), simulation.now)
    assert first is not None
    assert first == second
    assert first.body == second.body


def test_every_decision_is_addressed_as_its_envelope_says_and_names_what_it_is_based_on() -> None:
    simulation = granted(30)
    simulation.wait(timedelta(hours=5))
    simulation.say(simulation.halt(HaltMode.HALT_MODE_COMPENSATE, "ola", "so"))
    simulation.wait(timedelta(minutes=1))
    decided = [r for r in simulation.history if r.kind in (Kind.DECISION, Kind.RETRY, Kind.UNDO)]
    assert len(decided) > 5
    for recorded in decided:
        check_agreement(recorded.address, recorded.event)
        assert recorded.event.source == "coordinator"
        assert recorded.event.based_on_sequence == recorded.sequence - 1


def test_a_step_times_out_at_its_deadline_and_not_before() -> None:
    simulation = quiet(begun())
    deadline = run_of(simulation, "reserve").deadline
    assert decide(simulation.flow, deadline - MOMENT) is None
    entry = decide(simulation.flow, deadline)
    assert entry is not None
    assert entry.address.message_type == "handrail.v1.StepTimedOut"
    assert (entry.event.step, entry.event.root) == run_of(simulation, "reserve").key


def test_a_retry_hands_out_what_triggered_the_step() -> None:
    simulation = quiet(begun())
    simulation.say(simulation.failed(run_of(simulation, "reserve"), "no"))
    due = run_of(simulation, "reserve").retry_at
    assert due is not None
    assert decide(simulation.flow, due - MOMENT) is None
    entry = decide(simulation.flow, due)
    assert entry is not None
    trigger = simulation.history[0]
    assert entry.address[2:] == (Kind.RETRY, "warehouse", entry.event.event_id, "shop.v1.OrderPlaced")
    assert entry.event.data == trigger.event.data
    assert entry.event.causation_id == trigger.event_id
    assert (entry.event.step, entry.event.root, entry.event.run, entry.event.attempt) == (
        "reserve",
        trigger.event_id,
        0,
        2,
    )


def test_an_undo_hands_out_what_is_to_be_undone() -> None:
    simulation = paid()
    simulation.say(simulation.not_started(run_of(simulation, "send")))
    quiet(simulation).say(simulation.halt(HaltMode.HALT_MODE_COMPENSATE, "ola", "so"))
    simulation.coordinator = True
    simulation.wait(timedelta(hours=2))
    command = next(r for r in simulation.history if r.kind is Kind.UNDO)
    undone = effect_of(simulation, "PaymentTaken").recorded
    assert command.agent == "cashier"
    assert command.event.data == undone.event.data
    assert (command.event.step, command.event.root, command.event.attempt) == ("pay", undone.event_id, 1)
    assert command.event_id == ids.attempt_id("undo", simulation.flow_id, "pay", undone.event_id, 0, 1)


def test_a_release_has_the_id_and_the_bytes_of_its_proposal() -> None:
    simulation = granted()
    proposed, released = simulation.history[-2:]
    assert (proposed.kind, released.kind) == (Kind.PROPOSAL, Kind.RELEASED)
    assert released.address == proposed.address._replace(kind=Kind.RELEASED)
    assert released.event.SerializeToString() == proposed.event.SerializeToString()


def test_one_request_lists_every_gate_that_asks_with_all_that_people_need() -> None:
    simulation = granted(30)
    request = ApprovalRequested.FromString(simulation.history[-1].event.data.value)
    assert request.proposal_id == proposal_of(simulation).recorded.event_id
    assert request.digest == proposal_of(simulation).digest
    (gate,) = request.gates
    assert (gate.gate, list(gate.roles), gate.quorum) == ("big_discount", ["sales_lead"], 2)
    assert (gate.not_the_requester, gate.requester) == (True, "kim")
    assert gate.reason == "event.percent > 10"
    assert from_timestamp(gate.expire_time) == proposal_of(simulation).next_expiry


def test_a_gate_that_waits_for_ever_names_no_expiry() -> None:
    simulation = granted(30, big_discount__on_expiry="WAIT")
    request = ApprovalRequested.FromString(simulation.history[-1].event.data.value)
    assert not request.gates[0].HasField("expire_time")
    assert decide(simulation.flow, simulation.now + timedelta(hours=23)) is None


def test_an_expiry_that_rejects_carries_what_was_refused() -> None:
    simulation = quiet(granted(30))
    entry = decide(simulation.flow, simulation.now + timedelta(hours=4))
    assert entry is not None
    refused = ApprovalRefused.FromString(entry.event.data.value)
    assert refused.proposal == proposal_of(simulation).recorded.event.data
    assert refused.voter == ""
    assert "rejects when nobody answers" in refused.comment


def test_a_trip_is_recorded_before_its_consequence() -> None:
    simulation = begun(risk=9)
    assert types(simulation) == ["OrderPlaced", "RuleTripped", "FlowHalted", "Escalated"]
    tripped = RuleTripped.FromString(simulation.history[1].event.data.value)
    assert (tripped.rule, tripped.sequence, tripped.event_id) == ("risky", 1, simulation.history[0].event_id)


def test_a_trip_says_what_the_rule_read_and_in_which_wording() -> None:
    when = "flow.counts['shop.v1.StockReserved'] > 0 && flow.latest['shop.v1.OrderPlaced'].units > 1"
    simulation = begun(risky__when=when)
    simulation.wait(timedelta(seconds=7))
    emit(simulation, "reserve", "StockReserved", units=2)
    tripped = RuleTripped.FromString(simulation.history[2].event.data.value)
    assert tripped.inputs.counts == {"shop.v1.StockReserved": 1}
    assert tripped.inputs.latest == {"shop.v1.OrderPlaced": simulation.history[0].event_id}
    assert tripped.inputs.elapsed.ToTimedelta() == timedelta(seconds=7)
    (rule,) = simulation.flow.template.proto.rules
    assert tripped.rule_digest == hashlib.sha256(rule.SerializeToString(deterministic=True)).hexdigest()


def test_a_person_is_told_what_the_matter_is_and_what_may_be_done() -> None:
    simulation = begun()
    simulation.say(simulation.failed(run_of(simulation, "reserve"), "no such goods", retryable=False))
    escalated = Escalated.FromString(simulation.history[-1].event.data.value)
    assert escalated.step == "reserve"
    assert escalated.reason == "step reserve failed for good after 1 attempt: Broken: no such goods"
    assert len(escalated.choices) == 4
    assert simulation.history[-1].event.step == "reserve"


def test_the_template_halts_in_nobodys_name() -> None:
    simulation = granted(5, pay__retry={"max_attempts": "1"})
    simulation.say(simulation.failed(run_of(simulation, "pay"), "no money"))
    recorded = next(r for r in simulation.history if r.type == FlowHalted.DESCRIPTOR.full_name)
    halted = FlowHalted.FromString(recorded.event.data.value)
    assert halted.by == ""
    assert "no money" in halted.reason


def test_unknown_outcomes_come_before_undos() -> None:
    simulation = granted()
    simulation.say(simulation.halt(HaltMode.HALT_MODE_CANCEL, "ola", "no"))
    assert decide(simulation.flow, simulation.now) is None
    entry = decide(simulation.flow, simulation.now + timedelta(minutes=1))
    assert entry is not None
    assert entry.address.message_type == "handrail.v1.StepTimedOut"


def test_a_held_flow_starts_nothing_and_waits_for_what_it_has_started() -> None:
    simulation = reserved(risky__on=("shop.v1.StockReserved",), risky__when="true")
    simulation.say(simulation.failed(run_of(simulation, "discount"), "no"))
    simulation.wait(timedelta(hours=3))
    assert types(simulation)[-1] == "StepFailed"


@pytest.mark.parametrize("times", [1, 2, 3])
def test_an_answer_that_is_repeated_changes_nothing_more(times: int) -> None:
    simulation = begun()
    for attempt in range(times):
        simulation.say(simulation.failed(run_of(simulation, "reserve"), "no", retryable=False))
        escalation = next(iter(simulation.flow.escalations.values()))
        simulation.say(simulation.resolve(escalation.escalation_id, escalation.choices[0], "ola"))
        assert run_of(simulation, "reserve").attempt == attempt + 2
    emit(simulation, "reserve", "StockReserved", units=2)
    assert decide(simulation.flow, simulation.now) is None


def test_a_persons_decision_is_built_as_the_coordinators_are() -> None:
    simulation = begun()
    halted = messages.halted(simulation.flow, HaltMode.HALT_MODE_CANCEL, "no", simulation.now, by="ola")
    check_agreement(halted.address, halted.event)
    assert FlowHalted.FromString(halted.event.data.value).by == "ola"
