"""Undoing effects: the order, the attempts, and who may say that it is done."""

from __future__ import annotations

from datetime import timedelta

import pytest

from handrail.coordinator.decide import decide, messages
from handrail.mesh.flow import EffectState, RunState
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.subjects import Kind
from handrail.v1.decision_pb2 import Choice, CompensationStarted, HaltMode
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import StepCompleted
from tests.support.orders import effect_of, emit, granted, make, paid, reserved, run_of, sent, stands, types, void_of
from tests.support.simulation import Simulation

COMPENSATE, CANCEL = HaltMode.HALT_MODE_COMPENSATE, HaltMode.HALT_MODE_CANCEL


def compensating(**changes: str) -> Simulation:
    """A sent order that is being compensated: payment first, then the goods."""
    simulation = sent(**changes)
    simulation.say(simulation.halt(COMPENSATE, "ola", "so"))
    return simulation


def undo_commands(simulation: Simulation) -> list[str]:
    return [r.type.rpartition(".")[2] for r in simulation.history if r.kind is Kind.UNDO]


def test_the_newest_effect_is_undone_first_and_alone() -> None:
    simulation = compensating()
    assert undo_commands(simulation) == ["PaymentTaken"]
    simulation.say(simulation.undone(effect_of(simulation, "PaymentTaken"), make("PaymentReturned")))
    assert undo_commands(simulation) == ["PaymentTaken", "StockReserved"]


def test_all_at_once_where_the_template_says_so() -> None:
    assert undo_commands(compensating(flow__compensation_order="PARALLEL")) == ["PaymentTaken", "StockReserved"]


def test_the_plan_is_recorded_once_and_before_the_first_undo() -> None:
    simulation = compensating()
    plan = next(r for r in simulation.history if r.type == CompensationStarted.DESCRIPTOR.full_name)
    assert CompensationStarted.FromString(plan.event.data.value).event_ids == [
        effect_of(simulation, name).recorded.event_id for name in ("PaymentTaken", "StockReserved")
    ]
    assert types(simulation).index("CompensationStarted") < types(simulation).index("PaymentTaken", 7)
    again = messages.decision(simulation.flow, CompensationStarted(), about="", now=simulation.now)
    assert void_of(simulation, again) is not None


def test_no_undo_begins_while_an_outcome_is_unknown() -> None:
    simulation = granted()
    simulation.say(simulation.halt(COMPENSATE, "ola", "so"))
    assert undo_commands(simulation) == []
    emit(simulation, "pay", "PaymentTaken", amount=95)
    simulation.say(simulation.not_started(run_of(simulation, "send")))
    assert undo_commands(simulation) == ["PaymentTaken"], "what is known later is newer"


def test_an_undo_under_way_goes_on_when_a_newer_effect_comes_late() -> None:
    simulation = granted(5, pay__retry__max_attempts="1")
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    simulation.say(simulation.not_started(run_of(simulation, "pay")))
    assert undo_commands(simulation) == ["StockReserved"]
    emit(simulation, "pay", "PaymentTaken", amount=95)
    simulation.say(simulation.not_started(run_of(simulation, "send")))
    assert undo_commands(simulation) == ["StockReserved", "PaymentTaken"]
    simulation.wait(timedelta(seconds=60))
    assert {e.attempt for e in simulation.flow.undo_targets()} == {2}, "both are tried again"


def test_a_step_run_is_undone_when_all_its_effects_are() -> None:
    simulation = compensating()
    simulation.say(simulation.undone(effect_of(simulation, "PaymentTaken"), make("PaymentReturned")))
    assert run_of(simulation, "pay").state is RunState.UNDONE
    assert run_of(simulation, "reserve").state is RunState.DONE


def test_an_undo_of_an_older_run_leaves_the_newer_one_done() -> None:
    simulation = reserved()
    old = effect_of(simulation, "StockReserved")
    simulation.say(simulation.reopen(run_of(simulation, "reserve"), "ola"))
    emit(simulation, "reserve", "StockReserved", units=2)
    simulation.say(simulation.undone(old, StepCompleted()))
    assert run_of(simulation, "reserve").state is RunState.DONE


def test_what_is_undone_counts_whether_it_was_asked_for_or_not() -> None:
    simulation = reserved()
    assert void_of(simulation, simulation.undone(effect_of(simulation, "StockReserved"), StepCompleted())) is None
    assert effect_of(simulation, "StockReserved").state is EffectState.UNDONE


def test_p3_an_undo_has_one_answer() -> None:
    simulation = compensating()
    paid_effect = effect_of(simulation, "PaymentTaken")
    simulation.say(simulation.undone(paid_effect, make("PaymentReturned")))
    void = void_of(simulation, simulation.undone(paid_effect, StepCompleted()))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_DIFFERENT_ANSWER


@pytest.mark.parametrize("agent,name", [("warehouse", "PaymentReturned"), ("cashier", "StockReleased")])
def test_an_undo_is_reported_by_the_steps_agent_with_what_the_template_names(agent: str, name: str) -> None:
    simulation = compensating()
    void = void_of(simulation, simulation.undone(effect_of(simulation, "PaymentTaken"), make(name), agent=agent))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_WRONG_AGENT
    assert effect_of(simulation, "PaymentTaken").state is EffectState.UNDOING


@pytest.mark.parametrize("name", ["ParcelSent", "nothing"])
def test_what_can_not_be_undone_is_not_reported_undone(name: str) -> None:
    simulation = sent()
    entry = simulation.undone(effect_of(simulation, "ParcelSent"), StepCompleted())
    if name == "nothing":
        simulation = reserved()
    assert void_of(simulation, entry) is not None


def test_an_undo_that_fails_is_tried_again_and_then_given_to_a_person() -> None:
    simulation = compensating()
    simulation.say(simulation.undo_failed(effect_of(simulation, "PaymentTaken"), "closed"))
    effect = effect_of(simulation, "PaymentTaken")
    assert (effect.state, effect.deadline) == (EffectState.UNDOING, None)
    assert not simulation.flow.wants_undo(effect.recorded.event_id, 1), "that attempt is over"
    simulation.wait(timedelta(seconds=5))
    assert simulation.flow.wants_undo(effect.recorded.event_id, 2)
    simulation.say(simulation.undo_failed(effect_of(simulation, "PaymentTaken"), "closed"))
    assert effect_of(simulation, "PaymentTaken").state is EffectState.UNDO_FAILED
    assert stands(simulation) == "ESCALATED"


def test_a_failed_undo_of_an_attempt_that_is_over_is_void() -> None:
    simulation = compensating()
    first = effect_of(simulation, "PaymentTaken")
    simulation.wait(timedelta(seconds=25))
    assert effect_of(simulation, "PaymentTaken").attempt == 2
    assert void_of(simulation, simulation.undo_failed(first, "late", retryable=False)) is not None
    assert effect_of(simulation, "PaymentTaken").state is EffectState.UNDOING


def test_p4_a_time_out_of_an_undo_that_is_done_is_void() -> None:
    simulation = compensating()
    simulation.coordinator = False
    simulation.wait(timedelta(seconds=21))
    stale = decide(simulation.flow, simulation.now)
    simulation.say(simulation.undone(effect_of(simulation, "PaymentTaken"), make("PaymentReturned")))
    assert stale is not None
    assert void_of(simulation, stale) is not None


def test_p4_a_time_out_of_an_undo_by_a_clock_that_runs_ahead_is_void() -> None:
    simulation = compensating()
    early = decide(simulation.flow, simulation.now + timedelta(minutes=1))
    assert early is not None
    assert void_of(simulation, early) is not None
    assert effect_of(simulation, "PaymentTaken").state is EffectState.UNDOING


def test_p4_an_undo_is_commanded_once_an_attempt() -> None:
    simulation = compensating()
    stale = messages.undo(simulation.flow, effect_of(simulation, "PaymentTaken"), simulation.now)
    assert void_of(simulation, stale) is not None, "an attempt runs"
    other = messages.undo(simulation.flow, effect_of(simulation, "StockReserved"), simulation.now)
    simulation.coordinator = False
    simulation.say(simulation.undone(effect_of(simulation, "StockReserved"), StepCompleted()))
    assert void_of(simulation, other) is not None, "it is undone"


def test_p4_an_undo_that_was_decided_for_a_flow_that_goes_on_is_void() -> None:
    simulation = reserved()
    undo = messages.undo(simulation.flow, effect_of(simulation, "StockReserved"), simulation.now)
    assert void_of(simulation, undo) is not None
    assert effect_of(simulation, "StockReserved").state is EffectState.DONE


def test_a_heartbeat_moves_the_deadline_of_an_undo() -> None:
    simulation = compensating()
    effect = effect_of(simulation, "PaymentTaken")
    simulation.wait(timedelta(seconds=15))
    simulation.say(undo_progress(simulation, effect_of(simulation, "PaymentTaken").attempt, 1))
    assert effect_of(simulation, "PaymentTaken").deadline == simulation.now + timedelta(seconds=20)
    assert void_of(simulation, undo_progress(simulation, 7, 2)) is not None
    assert effect.attempt == 1


def undo_progress(simulation: Simulation, attempt: int, counter: int) -> Entry:
    effect = effect_of(simulation, "PaymentTaken")
    entry = simulation.progress(run_of(simulation, "pay"), counter)
    entry.event.root, entry.event.attempt = effect.recorded.event_id, attempt
    return entry


def test_a_person_has_an_undo_tried_again_with_all_its_attempts() -> None:
    simulation = compensating()
    simulation.say(simulation.undo_failed(effect_of(simulation, "PaymentTaken"), "closed", retryable=False))
    resolve(simulation, Choice.CHOICE_RETRY)
    effect = effect_of(simulation, "PaymentTaken")
    assert (effect.state, effect.attempt, effect.budget) == (EffectState.UNDOING, 2, 3)


@pytest.mark.parametrize(
    "choice,state,run",
    [
        (Choice.CHOICE_MARK_UNDONE, EffectState.UNDONE_BY_HAND, RunState.UNDONE),
        (Choice.CHOICE_ACCEPT, EffectState.ACCEPTED, RunState.DONE),
    ],
)
def test_a_person_says_where_an_effect_stands(choice: Choice.ValueType, state: EffectState, run: RunState) -> None:
    simulation = compensating()
    simulation.say(simulation.undo_failed(effect_of(simulation, "PaymentTaken"), "closed", retryable=False))
    resolve(simulation, choice)
    assert effect_of(simulation, "PaymentTaken").state is state
    assert run_of(simulation, "pay").state is run
    assert undo_commands(simulation)[-1] == "StockReserved"


def resolve(simulation: Simulation, choice: Choice.ValueType) -> None:
    (escalation,) = simulation.flow.escalations
    simulation.say(simulation.resolve(escalation, choice, "ola"))


def test_effects_that_are_kept_are_not_undone() -> None:
    simulation = paid()
    simulation.say(simulation.halt(CANCEL, "ola", "no", keep_effects=True))
    simulation.say(simulation.not_started(run_of(simulation, "send")))
    assert stands(simulation) == "CANCELLED"
    assert undo_commands(simulation) == []
