"""P7: what waits for a person, when it is raised, when it settles itself, and what becomes of the answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from handrail.coordinator.decide import decide, messages
from handrail.mesh.flow import EffectState, ProposalState, RunState
from handrail.mesh.fold import escalations
from handrail.v1.decision_pb2 import Choice, Escalated, EscalationCause, HaltMode, Resolved
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import StepCompleted
from tests.support.orders import (
    begun,
    effect_of,
    emit,
    granted,
    make,
    paid,
    proposal_of,
    reserved,
    run_of,
    stands,
    types,
    void_of,
)
from tests.support.simulation import Simulation

COMPENSATE, CANCEL = HaltMode.HALT_MODE_COMPENSATE, HaltMode.HALT_MODE_CANCEL
TWO_RULES: dict[str, Any] = {
    "flow__rules": tuple(
        {"name": name, "on": ("shop.v1.StockReserved",), "when": "event.units > 50", "then": "ESCALATE"}
        for name in ("big", "heavy")
    )
}


def causes(simulation: Simulation) -> list[str]:
    return [
        EscalationCause.Name(e.cause).removeprefix("ESCALATION_CAUSE_") for e in simulation.flow.escalations.values()
    ]


def resolve(simulation: Simulation, cause: str, choice: str) -> None:
    wanted = EscalationCause.Value(f"ESCALATION_CAUSE_{cause}")
    about = next(e.escalation_id for e in simulation.flow.escalations.values() if e.cause == wanted)
    simulation.say(simulation.resolve(about, Choice.Value(f"CHOICE_{choice}"), "ola"))


def failed() -> Simulation:
    simulation = begun()
    simulation.say(simulation.failed(run_of(simulation, "reserve"), "no", retryable=False))
    return simulation


def held_by_two_rules() -> Simulation:
    simulation = begun(**TWO_RULES)
    emit(simulation, "reserve", "StockReserved", units=60)
    return simulation


def test_a_matter_is_raised_once() -> None:
    simulation = failed()
    assert causes(simulation) == ["STEP_FAILED"]
    again = Escalated.FromString(simulation.history[-1].event.data.value)
    entry = messages.decision(simulation.flow, again, about="again", now=simulation.now)
    assert void_of(simulation, entry) is not None


def test_p4_a_matter_that_settled_itself_meanwhile_is_void() -> None:
    simulation = begun()
    simulation.coordinator = False
    simulation.say(simulation.failed(run_of(simulation, "reserve"), "no", retryable=False))
    stale = decide(simulation.flow, simulation.now)
    emit(simulation, "reserve", "StockReserved", units=2)
    assert stale is not None
    assert void_of(simulation, stale) is not None
    assert not simulation.flow.escalations


def test_an_open_matter_that_settles_itself_closes() -> None:
    simulation = failed()
    emit(simulation, "reserve", "StockReserved", units=2)
    assert stands(simulation) == "RUNNING"
    assert not simulation.flow.escalations


def test_p7_a_matter_that_comes_up_again_is_raised_again() -> None:
    simulation = begun()
    emit(simulation, "reserve", "StepCompleted")
    assert causes(simulation) == ["STRANDED"]
    simulation.say(simulation.reopen(run_of(simulation, "reserve"), "ola"))
    assert causes(simulation) == []
    simulation.say(simulation.failed(run_of(simulation, "reserve"), "no", retryable=False))
    resolve(simulation, "STEP_FAILED", "RETRY")
    simulation.say(simulation.outcome(run_of(simulation, "reserve"), StepCompleted()))
    assert causes(simulation) == ["STRANDED"]


def test_p7_a_matter_that_a_halt_left_open_is_raised_again() -> None:
    simulation = granted(5, pay__retry__max_attempts="1", pay__on_failure="ESCALATE")
    simulation.wait(timedelta(seconds=60))
    simulation.say(simulation.halt(COMPENSATE, "ola", "so", to_step="reserve"))
    assert causes(simulation) == ["OUTCOME_UNKNOWN"]
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    assert causes(simulation) == ["OUTCOME_UNKNOWN"], "it is still unknown"
    resolve(simulation, "OUTCOME_UNKNOWN", "ACCEPT")
    assert causes(simulation) == []


def test_an_answer_must_be_one_that_was_offered_to_a_matter_that_is_open() -> None:
    simulation = failed()
    escalation = next(iter(simulation.flow.escalations))
    void = void_of(simulation, simulation.resolve(escalation, Choice.CHOICE_ACCEPT, "ola"))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_CHOICE_NOT_OFFERED
    void = void_of(simulation, simulation.resolve("0" * 32, Choice.CHOICE_RETRY, "ola"))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_ESCALATION_NOT_FOUND
    resolve(simulation, "STEP_FAILED", "RETRY")
    void = void_of(simulation, simulation.resolve(escalation, Choice.CHOICE_RETRY, "ola"))
    assert void is not None, "answered once"


def test_an_answer_names_who_gave_it() -> None:
    simulation = failed()
    anonymous = simulation.resolve(next(iter(simulation.flow.escalations)), Choice.CHOICE_CANCEL, "")
    assert void_of(simulation, anonymous) is not None
    assert causes(simulation) == ["STEP_FAILED"]


def test_an_answer_about_a_step_is_not_taken_for_one_about_the_effect_that_triggered_it() -> None:
    simulation = paid(send__on_failure="ESCALATE")
    simulation.say(simulation.failed(run_of(simulation, "send"), "no", retryable=False))
    resolve(simulation, "STEP_FAILED", "RETRY")
    assert run_of(simulation, "send").attempt == 2
    assert effect_of(simulation, "PaymentTaken").state is EffectState.DONE


def test_a_second_answer_waits_until_the_first_is_carried_out() -> None:
    simulation = granted(30, by="", discount__on_failure="ESCALATE")
    simulation.say(simulation.reopen(run_of(simulation, "reserve"), "ola"))
    simulation.say(simulation.failed(run_of(simulation, "reserve"), "no", retryable=False))
    assert causes(simulation) == ["NO_APPROVER", "STEP_FAILED"]
    simulation.coordinator = False
    resolve(simulation, "STEP_FAILED", "CANCEL")
    about = next(iter(simulation.flow.escalations))
    void = void_of(simulation, simulation.resolve(about, Choice.CHOICE_REJECT, "eva"))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_WRONG_STATUS
    simulation.coordinator = True
    simulation.settle()
    assert stands(simulation) == "COMPENSATING", "the first answer is not lost"


def test_answers_that_need_no_decision_do_not_wait_for_one_another() -> None:
    simulation = paid()
    simulation.say(simulation.halt(COMPENSATE, "ola", "so", to_step="reserve"))
    simulation.say(simulation.not_started(run_of(simulation, "send")))
    simulation.say(simulation.undo_failed(effect_of(simulation, "PaymentTaken"), "closed", retryable=False))
    resolve(simulation, "UNDO_FAILED", "ACCEPT")
    assert causes(simulation) == ["COMPENSATED_TO_STEP"]


def test_a_hold_is_lifted_when_all_its_rules_are_answered() -> None:
    simulation = held_by_two_rules()
    assert causes(simulation) == ["RULE", "RULE"]
    resolve(simulation, "RULE", "RESUME")
    assert simulation.flow.is_held, "one answer does not stand for another"
    assert causes(simulation) == ["RULE"]
    resolve(simulation, "RULE", "RESUME")
    assert stands(simulation) == "RUNNING"


def test_a_hold_is_ended_by_the_first_answer_that_ends_it() -> None:
    simulation = held_by_two_rules()
    resolve(simulation, "RULE", "CANCEL")
    assert stands(simulation) == "COMPENSATING"
    assert causes(simulation) == []


def test_letting_a_flow_go_on_past_its_deadline_lifts_no_hold() -> None:
    simulation = begun(risk=9)
    simulation.say(simulation.not_started(run_of(simulation, "reserve")))
    simulation.wait(timedelta(days=1))
    assert causes(simulation) == ["RULE", "DEADLINE"]
    resolve(simulation, "DEADLINE", "RESUME")
    assert simulation.flow.is_held
    simulation.wait(timedelta(days=3))
    assert causes(simulation) == ["RULE"], "the deadline passes once"


def test_a_flow_that_completes_has_no_open_matter() -> None:
    simulation = paid(send__timeout="200000s")
    simulation.wait(timedelta(days=1))
    assert causes(simulation) == ["DEADLINE"]
    escalation = next(iter(simulation.flow.escalations))
    emit(simulation, "send", "ParcelSent")
    assert not simulation.flow.escalations
    assert void_of(simulation, simulation.resolve(escalation, Choice.CHOICE_CANCEL, "ola")) is not None
    assert stands(simulation) == "COMPLETED"


def test_an_answer_that_came_before_the_flow_completed_is_carried_out() -> None:
    simulation = paid(send__timeout="200000s")
    simulation.wait(timedelta(days=1))
    simulation.coordinator = False
    resolve(simulation, "DEADLINE", "CANCEL")
    emit(simulation, "send", "ParcelSent")
    assert stands(simulation) == "RUNNING"
    simulation.coordinator = True
    simulation.settle()
    assert stands(simulation) == "COMPENSATING"


def test_p4_a_deadline_by_a_clock_that_runs_ahead_is_void() -> None:
    simulation = paid(send__timeout="200000s")
    early = decide(simulation.flow, simulation.now + timedelta(days=1))
    assert early is not None
    assert void_of(simulation, early) is not None
    assert not simulation.flow.escalations


def test_an_expired_request_waits_for_a_person_and_takes_no_votes() -> None:
    simulation = granted(30, big_discount__on_expiry="ESCALATE")
    simulation.wait(timedelta(hours=4))
    assert proposal_of(simulation).state is ProposalState.EXPIRED
    assert void_of(simulation, simulation.vote(proposal_of(simulation), "ann", ["sales_lead"])) is not None
    resolve(simulation, "APPROVAL_EXPIRED", "EXTEND")
    assert proposal_of(simulation).state is ProposalState.PENDING
    assert proposal_of(simulation).next_expiry == simulation.now + timedelta(hours=4)
    simulation.wait(timedelta(hours=4))
    assert causes(simulation) == ["APPROVAL_EXPIRED"], "and again"


@pytest.mark.parametrize("cause", ["APPROVAL_EXPIRED", "NO_APPROVER"])
def test_a_person_refuses_what_nobody_may_or_did_answer(cause: str) -> None:
    by = "kim" if cause == "APPROVAL_EXPIRED" else ""
    simulation = granted(30, by=by, big_discount__on_expiry="ESCALATE")
    simulation.wait(timedelta(hours=4))
    resolve(simulation, cause, "REJECT")
    assert proposal_of(simulation).state is ProposalState.REJECTED
    assert run_of(simulation, "refuse").state is RunState.OWED
    assert simulation.flow.pending_resolution is None


def test_a_person_ends_a_flow_by_an_answer_and_is_named_for_it() -> None:
    simulation = failed()
    resolve(simulation, "STEP_FAILED", "FAIL")
    assert stands(simulation) == "FAILED"
    assert simulation.flow.halt is not None
    assert simulation.flow.halt.by == "ola"
    assert simulation.flow.closed_reason == "as agreed"


def test_an_unknown_outcome_that_a_person_accepts_is_taken_for_not_done() -> None:
    simulation = granted(5, pay__retry__max_attempts="1")
    simulation.wait(timedelta(seconds=60))
    resolve(simulation, "OUTCOME_UNKNOWN", "ACCEPT")
    assert not run_of(simulation, "pay").may_have_effect
    simulation.say(simulation.undone(effect_of(simulation, "StockReserved"), make("StockReleased")))
    assert stands(simulation) == "COMPENSATED"


@pytest.mark.parametrize("most,held", [(900, True), (899, False), (2000, True), (1999, False)])
def test_a_template_says_with_how_many_messages_a_flow_is_held(most: int, held: bool) -> None:
    flow = reserved(flow__max_messages=str(2000 if most > 900 else 900)).flow.copy()
    flow.message_count = most
    simulation = Simulation(flow.template)
    simulation.flow = flow
    simulation.history = [flow.first] * flow.last_sequence  # type: ignore[list-item]
    simulation.settle()
    assert causes(simulation) == (["FLOODED"] if held else [])


def test_a_flooded_flow_offers_to_end_it_and_nothing_else() -> None:
    flow = reserved().flow.copy()
    flow.message_count = 900
    simulation = Simulation(flow.template)
    simulation.flow = flow
    simulation.history = [flow.first] * flow.last_sequence  # type: ignore[list-item]
    simulation.settle()
    assert causes(simulation) == ["FLOODED"]
    (escalation,) = simulation.flow.escalations.values()
    assert Choice.CHOICE_RESUME not in escalation.choices
    resolve(simulation, "FLOODED", "COMPENSATE")
    assert stands(simulation) == "COMPENSATING"
    assert causes(simulation) == []


def test_going_back_waits_for_a_person_once_everything_is_undone() -> None:
    simulation = paid()
    simulation.say(simulation.halt(COMPENSATE, "ola", "so", to_step="reserve"))
    assert causes(simulation) == []
    simulation.say(simulation.not_started(run_of(simulation, "send")))
    assert causes(simulation) == []
    simulation.say(simulation.undone(effect_of(simulation, "PaymentTaken"), make("PaymentReturned")))
    assert causes(simulation) == ["COMPENSATED_TO_STEP"]


def test_resuming_waits_for_an_effect_that_came_late() -> None:
    simulation = granted(5, pay__retry__max_attempts="1")
    simulation.say(simulation.halt(COMPENSATE, "ola", "so", to_step="reserve"))
    simulation.say(simulation.not_started(run_of(simulation, "pay")))
    simulation.coordinator = False
    resolve(simulation, "COMPENSATED_TO_STEP", "RESUME")
    emit(simulation, "pay", "PaymentTaken", amount=95)
    simulation.say(simulation.not_started(run_of(simulation, "send")))
    simulation.coordinator = True
    simulation.settle()
    assert "FlowResumed" not in types(simulation)
    simulation.say(simulation.undone(effect_of(simulation, "PaymentTaken"), make("PaymentReturned")))
    assert "FlowResumed" in types(simulation)
    assert stands(simulation) == "RUNNING"


def test_nothing_waits_for_a_person_in_a_flow_that_has_not_begun_or_is_closed() -> None:
    assert list(escalations.matters(Simulation(begun().template).flow, begun().now)) == []
    simulation = failed()
    resolve(simulation, "STEP_FAILED", "FAIL")
    assert list(escalations.matters(simulation.flow, simulation.now)) == []


def test_a_resolution_of_a_closed_matter_says_so() -> None:
    simulation = failed()
    escalation = next(iter(simulation.flow.escalations))
    resolve(simulation, "STEP_FAILED", "CANCEL")
    late = Resolved(escalation_id=escalation, choice=Choice.CHOICE_FAIL, by="eva")
    void = void_of(simulation, messages.decision(simulation.flow, late, about="late", now=simulation.now))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_ESCALATION_NOT_FOUND
