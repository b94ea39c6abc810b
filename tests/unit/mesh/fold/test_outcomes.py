"""Outcomes: what counts as a fact, what is a proposal, and what is void."""

from __future__ import annotations

import pytest

from handrail.coordinator.decide import messages
from handrail.mesh.flow import EffectState, ProposalState, RunState
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.subjects import Kind
from handrail.v1.decision_pb2 import HaltMode
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import StepCompleted
from tests.support.orders import (
    begun,
    effect_of,
    emit,
    granted,
    load,
    make,
    paid,
    proposal_of,
    reserved,
    run_of,
    sent,
    stands,
    void_of,
)
from tests.support.simulation import Simulation

CANCEL = HaltMode.HALT_MODE_CANCEL


@pytest.mark.parametrize(
    "agent,name,reason",
    [
        ("storefront", "StockReserved", ErrorReason.ERROR_REASON_WRONG_AGENT),
        ("cashier", "OrderPlaced", ErrorReason.ERROR_REASON_WRONG_AGENT),
    ],
)
def test_a_flow_begins_with_what_its_template_says_by_whom_it_says(
    agent: str, name: str, reason: ErrorReason.ValueType
) -> None:
    simulation = Simulation(load("order"))
    void = void_of(simulation, simulation.start(make(name), agent=agent))
    assert void is not None
    assert void.reason == reason
    assert stands(simulation) == "UNSPECIFIED"
    assert void_of(simulation, simulation.start(make("OrderPlaced"), agent="storefront")) is None
    assert stands(simulation) == "RUNNING"


def test_p3_a_flow_begins_once() -> None:
    simulation = begun()
    void = void_of(simulation, simulation.start(make("OrderPlaced", units=9), agent="storefront"))
    assert void is not None
    assert simulation.flow.requester == "kim"


def test_the_requester_counts_only_where_the_coordinator_vouches_for_it() -> None:
    simulation = Simulation(load("order"))
    simulation.say(simulation.start(make("OrderPlaced"), agent="storefront", requester="the boss"))
    assert simulation.flow.requester == "agent/storefront"


def test_p3_a_step_run_gives_one_answer_whatever_the_stream_lets_through() -> None:
    simulation = begun("offer")
    emit(simulation, "list", "PartsListed", parts=0)
    facts = dict(simulation.flow.facts)
    second = simulation.outcome(run_of(simulation, "list"), make("PartFound"))
    void = void_of(simulation, second)
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_DIFFERENT_ANSWER
    assert simulation.flow.facts == facts


def test_p3_nor_one_as_a_fact_and_one_as_a_proposal() -> None:
    simulation = granted(30)
    void = void_of(simulation, simulation.outcome(run_of(simulation, "discount"), StepCompleted()))
    assert void is not None
    assert proposal_of(simulation).state is ProposalState.PENDING


def test_an_outcome_counts_whichever_attempt_it_comes_from() -> None:
    simulation = begun()
    first = run_of(simulation, "reserve")
    simulation.wait(first.deadline - simulation.now)
    simulation.wait(simulation.flow.runs[first.key].retry_at - simulation.now)  # type: ignore[operator]
    assert run_of(simulation, "reserve").attempt == 2
    assert void_of(simulation, simulation.outcome(first, make("StockReserved", units=2))) is None
    assert run_of(simulation, "reserve").state is RunState.DONE


def test_a_run_is_done_when_all_its_outputs_are_there() -> None:
    simulation = begun("offer")
    run = run_of(simulation, "list")
    simulation.say(simulation.outcome(run, make("PartFound"), index=1, total=2))
    assert run_of(simulation, "list").state is RunState.OWED
    simulation.say(simulation.outcome(run, make("PartsListed", parts=1), index=0, total=2))
    assert run_of(simulation, "list").state is RunState.DONE


@pytest.mark.parametrize("index,total", [(2, 2), (0, 3), (5, 1)])
def test_an_output_that_does_not_fit_the_announced_number_is_void(index: int, total: int) -> None:
    simulation = begun("offer")
    run = run_of(simulation, "list")
    simulation.say(simulation.outcome(run, make("PartFound"), index=1, total=2))
    assert void_of(simulation, simulation.outcome(run, make("PartsListed"), index=index, total=total)) is not None


def test_p5_no_part_of_an_answer_of_too_many_outputs_counts() -> None:
    simulation = reserved(discount__max_outputs=2)
    run = run_of(simulation, "discount")
    for index in range(3):
        void = void_of(simulation, simulation.outcome(run, make("DiscountGranted"), index=index, total=3))
        assert void is not None
        assert void.reason == ErrorReason.ERROR_REASON_CONTRACT_VIOLATION
        assert void.text == "step discount answers with 3 messages; at most 2 are allowed"
    assert not simulation.flow.proposals
    assert run_of(simulation, "discount").state is RunState.OWED
    simulation = reserved(discount__max_outputs=2)
    run = run_of(simulation, "discount")
    for index in range(2):
        assert void_of(simulation, simulation.outcome(run, make("DiscountGranted"), index=index, total=2)) is None
    assert run_of(simulation, "discount").state is RunState.DONE


def test_an_outcome_for_a_run_that_is_not_there_yet_is_void() -> None:
    simulation = begun()
    run = run_of(simulation, "reserve")
    assert void_of(simulation, simulation.outcome(run, make("StockReserved"), number=1)) is not None
    assert run_of(simulation, "reserve").state is RunState.OWED


def test_p5_an_outcome_that_breaks_its_contract_is_void_and_belongs_into_quarantine() -> None:
    simulation = begun()
    void = void_of(simulation, simulation.outcome(run_of(simulation, "reserve"), make("StockReserved", units=-1)))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_CONTRACT_VIOLATION
    assert "units" in void.text
    assert simulation.flow.divergences[0].agent == "warehouse"


def test_p6_a_gated_message_as_a_plain_fact_is_void() -> None:
    simulation = reserved()
    entry = simulation.outcome(run_of(simulation, "discount"), make("DiscountGranted", percent=90), kind=Kind.EVENT)
    void = void_of(simulation, entry)
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_GATE_BYPASSED
    assert not any(run.step.name == "pay" for run in simulation.flow.runs.values())


def test_a_message_that_passes_no_gate_is_no_proposal() -> None:
    simulation = begun()
    entry = simulation.outcome(run_of(simulation, "reserve"), make("StockReserved"), kind=Kind.PROPOSAL)
    assert void_of(simulation, entry) is not None
    assert not simulation.flow.proposals


def test_p6_a_release_that_nobody_proposed_is_void() -> None:
    simulation = reserved()
    entry = simulation.outcome(run_of(simulation, "discount"), make("DiscountGranted", percent=90), kind=Kind.RELEASED)
    void = void_of(simulation, entry)
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_GATE_BYPASSED


def test_p6_a_release_has_the_very_bytes_that_were_proposed() -> None:
    simulation = granted(30)
    proposed = proposal_of(simulation).recorded
    dearer = simulation.outcome(run_of(simulation, "discount"), make("DiscountGranted", percent=99))
    dearer.event.causation_id = proposed.event.causation_id
    void = void_of(simulation, Entry(proposed.address._replace(kind=Kind.RELEASED), dearer.event))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_GATE_BYPASSED


def test_p6_a_release_before_the_quorum_is_void() -> None:
    simulation = granted(30)
    simulation.say(simulation.vote(proposal_of(simulation), "ann", ["sales_lead"]))
    assert void_of(simulation, messages.release(proposal_of(simulation))) is not None
    assert proposal_of(simulation).state is ProposalState.PENDING


def test_a_release_that_was_decided_before_the_flow_was_halted_is_void() -> None:
    simulation = reserved(risky__on=("shop.v1.StockReserved",), risky__when="true")
    simulation.coordinator = False
    emit(simulation, "discount", "DiscountGranted", percent=5)
    assert void_of(simulation, messages.release(proposal_of(simulation))) is not None
    assert proposal_of(simulation).state is ProposalState.EVALUATED


def test_a_proposal_in_a_flow_that_is_ending_is_withdrawn() -> None:
    simulation = reserved()
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    emit(simulation, "discount", "DiscountGranted", percent=5)
    assert proposal_of(simulation).state is ProposalState.WITHDRAWN
    assert not simulation.flow.facts_by_type.get("shop.v1.DiscountGranted")


def test_an_effect_is_there_from_the_outcome_on() -> None:
    simulation = sent()
    states = {effect.step.name: effect.state for effect in simulation.flow.effects.values()}
    assert states == {
        "reserve": EffectState.DONE,
        "pay": EffectState.DONE,
        "send": EffectState.IRREVERSIBLE,
    }


def test_p7_an_effect_that_comes_late_reopens_a_flow_that_was_closed_undone() -> None:
    simulation = granted(5, pay__retry__max_attempts="1")
    run = run_of(simulation, "pay")
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    simulation.say(simulation.not_started(run))
    simulation.say(simulation.undone(effect_of(simulation, "StockReserved"), StepCompleted()))
    assert stands(simulation) == "CANCELLED"
    emit(simulation, "pay", "PaymentTaken", amount=95)
    assert stands(simulation) == "COMPENSATING"


def test_an_effect_that_comes_late_leaves_a_failed_flow_as_it_is() -> None:
    simulation = granted(5, risky__on=("shop.v1.DiscountGranted",), risky__when="true", risky__then="FAIL")
    assert stands(simulation) == "FAILED"
    emit(simulation, "pay", "PaymentTaken", amount=95)
    assert stands(simulation) == "FAILED"
    assert effect_of(simulation, "PaymentTaken").state is EffectState.DONE


def test_an_irreversible_effect_is_never_undone() -> None:
    simulation = sent()
    simulation.say(simulation.halt(HaltMode.HALT_MODE_COMPENSATE, "ola", "so"))
    assert [effect.recorded.type for effect in simulation.flow.undo_targets()] == [
        "shop.v1.PaymentTaken",
        "shop.v1.StockReserved",
    ]


def test_an_outcome_without_effect_for_what_was_taken_back_is_void() -> None:
    simulation = paid()
    simulation.say(simulation.halt(HaltMode.HALT_MODE_COMPENSATE, "ola", "so", to_step="reserve"))
    old = run_of(simulation, "discount")
    simulation.say(simulation.not_started(run_of(simulation, "send")))
    simulation.say(simulation.undone(effect_of(simulation, "PaymentTaken"), StepCompleted()))
    escalation = next(iter(simulation.flow.escalations.values()))
    simulation.say(simulation.resolve(escalation.escalation_id, escalation.choices[0], "ola"))
    late = simulation.outcome(old, make("DiscountGranted", percent=5), index=1, total=2)
    assert void_of(simulation, late) is not None
    assert proposal_of(simulation).state is ProposalState.WITHDRAWN
