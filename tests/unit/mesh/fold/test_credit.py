"""Credit: what fell due because nobody was there is due later, for every reader; and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handrail.coordinator.decide import decide
from handrail.coordinator.decide.timers import timers
from handrail.mesh.flow import RunState
from handrail.mesh.flow.absence import ABSENT_AFTER
from handrail.mesh.wire.envelope import Entry, from_timestamp, pack, timestamp
from handrail.v1.decision_pb2 import Choice, HaltMode, StepTimedOut, TimeCredited
from tests.support.orders import begun, effect_of, emit, granted, paid, proposal_of, reserved, run_of, types, void_of
from tests.support.random_templates import Spec, compiled, specs
from tests.support.simulation import Simulation
from tests.unit.mesh.fold.test_flow_properties import wander

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)


def away(simulation: Simulation, duration: timedelta) -> None:
    """Nobody is there for a time; and then somebody is who has not looked at the flow yet."""
    simulation.coordinator = False
    simulation.wait(duration)
    simulation.coordinator = True


def credit(simulation: Simulation) -> Entry:
    """What the coordinator is about to give."""
    entry = decide(simulation.flow, simulation.now, simulation.absences)
    assert entry is not None
    assert entry.address.message_type == TimeCredited.DESCRIPTOR.full_name
    return entry


def changed(entry: Entry, change: Callable[[TimeCredited], object]) -> Entry:
    message = TimeCredited.FromString(entry.event.data.value)
    change(message)
    entry.event.data.CopyFrom(pack(message))
    return entry


def test_p4_every_reader_moves_the_deadline_by_the_message_alone() -> None:
    simulation = begun()
    away(simulation, HOUR)
    simulation.settle()
    run = run_of(simulation, "reserve")
    assert (run.state, run.attempt, run.deadline) == (RunState.OWED, 1, simulation.now + 30 * SECOND)
    assert simulation.folded() == simulation.flow
    assert types(simulation) == ["OrderPlaced", "TimeCredited"]


def test_who_does_not_know_of_the_absence_times_out_and_who_does_gives_time_first() -> None:
    simulation = begun()
    away(simulation, HOUR)
    blind = decide(simulation.flow, simulation.now)
    assert blind is not None
    assert blind.address.message_type == StepTimedOut.DESCRIPTOR.full_name
    credit(simulation)


def test_a_credit_that_comes_after_the_outcome_is_void() -> None:
    simulation = begun()
    away(simulation, HOUR)
    late = credit(simulation)
    emit(simulation, "reserve", "StockReserved", units=2)
    assert void_of(simulation, late) is not None


def test_a_credit_that_comes_after_a_heartbeat_is_void() -> None:
    simulation = begun()
    away(simulation, HOUR)
    late = credit(simulation)
    simulation.coordinator = False
    simulation.say(simulation.progress(run_of(simulation, "reserve"), 1))
    assert void_of(simulation, late) is not None
    assert run_of(simulation, "reserve").deadline == simulation.now + 30 * SECOND


def test_a_credit_counts_once() -> None:
    simulation = begun()
    away(simulation, HOUR)
    first, second = credit(simulation), credit(simulation)
    second.event.event_id = "f" * 32
    simulation.store(first)
    moved = run_of(simulation, "reserve").deadline
    assert void_of(simulation, Entry(second.address._replace(event_id="f" * 32), second.event)) is not None
    assert run_of(simulation, "reserve").deadline == moved


@pytest.mark.parametrize(
    "change",
    [
        lambda message: message.until.CopyFrom(timestamp(from_timestamp(message.until) + SECOND)),
        lambda message: message.until.CopyFrom(message.what.due_time),
        lambda message: message.ClearField("absences"),
        lambda message: message.absences[0].end_time.CopyFrom(message.absences[0].start_time),
        lambda message: message.until.MergeFrom(type(message.until)(seconds=1 << 60)),
        lambda message: setattr(message.what, "attempt", 2),
        lambda message: setattr(message.what, "kind", 4),
        lambda message: setattr(message.what, "subject_id", "nothing"),
    ],
)
def test_a_credit_that_the_absence_does_not_give_is_void(change: Callable[[TimeCredited], object]) -> None:
    simulation = begun()
    away(simulation, HOUR)
    simulation.coordinator = False
    due = run_of(simulation, "reserve").deadline
    assert void_of(simulation, changed(credit(simulation), change)) is not None
    assert run_of(simulation, "reserve").deadline == due


def test_the_time_of_a_retry_a_heartbeat_or_a_credit_starts_over() -> None:
    """Absences from before do not count again."""
    simulation = begun()
    away(simulation, HOUR)
    simulation.settle()
    simulation.wait(30 * SECOND)
    assert run_of(simulation, "reserve").state is RunState.BACKOFF
    simulation.wait(10 * SECOND)
    assert run_of(simulation, "reserve").attempt == 2
    simulation.wait(10 * SECOND)
    simulation.say(simulation.progress(run_of(simulation, "reserve"), 1))
    simulation.wait(30 * SECOND)
    assert run_of(simulation, "reserve").state is RunState.BACKOFF
    assert types(simulation).count("TimeCredited") == 1


def test_an_undo_has_its_time_again() -> None:
    simulation = reserved()
    simulation.say(simulation.halt(HaltMode.HALT_MODE_CANCEL, "ola", "no"))
    away(simulation, HOUR)
    simulation.settle()
    effect = effect_of(simulation, "StockReserved")
    assert (effect.attempt, effect.deadline) == (1, simulation.now + 30 * SECOND)


def test_each_gate_of_an_approval_is_given_what_it_lost() -> None:
    simulation = granted(30)
    simulation.wait(HOUR)
    away(simulation, 2 * HOUR)
    simulation.wait(HOUR)
    assert proposal_of(simulation).next_expiry == simulation.now + 2 * HOUR
    simulation.wait(2 * HOUR - SECOND)
    assert "ApprovalRefused" not in types(simulation)
    simulation.wait(SECOND)
    assert types(simulation).count("ApprovalRefused") == 1


def test_an_approval_that_is_extended_begins_anew() -> None:
    simulation = granted(30, big_discount__on_expiry="ESCALATE")
    simulation.wait(HOUR)
    away(simulation, 2 * HOUR)
    simulation.wait(3 * HOUR)
    escalation = next(iter(simulation.flow.escalations))
    simulation.say(simulation.resolve(escalation, Choice.CHOICE_EXTEND, "ola"))
    assert proposal_of(simulation).next_expiry == simulation.now + 4 * HOUR


def test_the_deadline_of_the_flow_moves_too() -> None:
    simulation = paid(send__timeout="360000s")
    simulation.wait(20 * HOUR)
    away(simulation, 10 * HOUR)
    simulation.settle()
    assert simulation.flow.deadline == simulation.flow.start_time + 34 * HOUR
    assert timers(simulation.flow)
    simulation.wait(4 * HOUR)
    assert types(simulation)[-1] == "Escalated"


def test_a_happy_flow_has_no_message_of_it() -> None:
    simulation = begun()
    away(simulation, timedelta(seconds=20))
    emit(simulation, "reserve", "StockReserved", units=2)
    emit(simulation, "discount", "DiscountGranted", percent=5)
    emit(simulation, "pay", "PaymentTaken", amount=95)
    emit(simulation, "send", "ParcelSent")
    assert "TimeCredited" not in types(simulation)


@settings(max_examples=60)
@given(specs(), st.data())
def test_p7_no_attempt_is_timed_out_before_it_had_its_time_while_somebody_was_there(
    spec: Spec, data: st.DataObject
) -> None:
    wanderer = wander(compiled(spec), data, length=4)
    simulation = wanderer.simulation
    for _ in range(data.draw(st.integers(1, 6), label="absences")):
        away(simulation, data.draw(st.sampled_from([ABSENT_AFTER * 2, HOUR, timedelta(days=2)])))
        simulation.settle()
        simulation.wait(data.draw(st.sampled_from([SECOND, 20 * SECOND, timedelta(minutes=5)])))
        wanderer.next_act(data).do()
    for recorded, before in zip(simulation.history, wanderer.states, strict=False):
        if recorded.type != StepTimedOut.DESCRIPTOR.full_name or recorded.sequence in simulation.flow.void:
            continue
        timed_out = StepTimedOut.FromString(recorded.event.data.value)
        if not timed_out.undo_of:
            run = before.runs[timed_out.step, timed_out.root]
            begun_at = run.counted_from or run.since
            lost = sum(
                (
                    min(a.end, recorded.time) - max(a.start, begun_at)
                    for a in simulation.absences
                    if a.start < recorded.time and a.end > begun_at
                ),
                timedelta(),
            )
            assert recorded.time - begun_at - lost >= timedelta()
            assert run.deadline <= recorded.time
            assert not any(a.start < run.deadline and a.end > begun_at for a in simulation.absences), "it was given"
