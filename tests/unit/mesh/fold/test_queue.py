"""Queues: an attempt that nobody has begun is not late; what was handed out and is silent is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from handrail.coordinator.decide import agents_due, decide, messages
from handrail.mesh.flow import RunState
from handrail.mesh.flow.queue import JUST_NOW, Queue
from handrail.mesh.fold.deadlines import watched
from handrail.mesh.wire.envelope import Entry, pack, timestamp
from handrail.v1.decision_pb2 import HaltMode, StepQueued, StepTimedOut
from tests.support.orders import begun, effect_of, emit, granted, reserved, run_of, sent, types, void_of
from tests.support.simulation import Simulation

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)


def waiting(**changes: str) -> Simulation:
    """An order whose payment is due, and waits for a cashier who is at work elsewhere."""
    simulation = reserved(**changes)
    simulation.take_nothing("cashier")
    emit(simulation, "discount", "DiscountGranted", percent=5)
    simulation.now += 60 * SECOND
    return simulation


def queued(simulation: Simulation, change: Callable[[StepQueued], object] = lambda _: None) -> Entry:
    """What the coordinator is about to say of it, changed."""
    entry = decide(simulation.flow, simulation.now, (), simulation.queues)
    assert entry is not None
    assert entry.address.message_type == StepQueued.DESCRIPTOR.full_name
    message = StepQueued.FromString(entry.event.data.value)
    change(message)
    entry.event.data.CopyFrom(pack(message))
    return entry


def test_p4_every_reader_moves_the_deadline_by_the_message_alone() -> None:
    simulation = waiting()
    simulation.store(queued(simulation))
    assert run_of(simulation, "pay").deadline == simulation.now + 60 * SECOND
    assert simulation.folded() == simulation.flow


def test_who_does_not_look_at_the_queue_times_out() -> None:
    simulation = waiting()
    entry = decide(simulation.flow, simulation.now)
    assert entry is not None
    assert entry.address.message_type == StepTimedOut.DESCRIPTOR.full_name


def test_the_queues_of_what_is_due_are_looked_at_and_no_others() -> None:
    simulation = granted()
    assert agents_due(simulation.flow, simulation.now) == frozenset()
    assert agents_due(simulation.flow, simulation.now + 60 * SECOND) == {"cashier"}
    assert agents_due(sent().flow, simulation.now + HOUR) == frozenset()
    simulation = reserved()
    simulation.say(simulation.halt(HaltMode.HALT_MODE_CANCEL, "ola", "no"))
    assert "warehouse" in agents_due(simulation.flow, simulation.now + 20 * SECOND)


@pytest.mark.parametrize(
    "change",
    [
        lambda message: message.until.CopyFrom(message.what.due_time),
        lambda message: setattr(message.until, "seconds", message.until.seconds + 1),
        lambda message: setattr(message.until, "seconds", 1 << 60),
        lambda message: setattr(message.what, "attempt", 2),
        lambda message: message.what.due_time.CopyFrom(timestamp(begun().now)),
        lambda message: setattr(message.what, "kind", 4),
    ],
)
def test_a_wait_that_nobody_may_have_is_void(change: Callable[[StepQueued], object]) -> None:
    simulation = waiting()
    simulation.coordinator = False
    due = run_of(simulation, "pay").deadline
    assert void_of(simulation, queued(simulation, change)) is not None
    assert run_of(simulation, "pay").deadline == due


def test_a_wait_that_is_said_of_what_began_meanwhile_is_void() -> None:
    simulation = waiting()
    late = queued(simulation)
    simulation.say(simulation.progress(run_of(simulation, "pay"), 1))
    assert void_of(simulation, late) is not None


def test_no_wait_is_longer_than_the_template_says() -> None:
    simulation = waiting(pay__start_within="90s")
    simulation.wait(30 * SECOND)
    run = run_of(simulation, "pay")
    assert (run.state, run.attempt) == (RunState.BACKOFF, 1)
    assert types(simulation).count("StepQueued") == 1


def test_where_the_template_says_nothing_an_agent_at_work_is_waited_for_as_long_as_the_flow_may_take() -> None:
    simulation = waiting(pay__on_failure="ESCALATE")
    simulation.wait(timedelta(days=1) - 60 * SECOND)
    assert run_of(simulation, "pay").attempt == 1
    assert types(simulation).count("StepQueued") < 15, "the longer it waits the seldomer somebody looks"


@pytest.mark.parametrize("idle, state", [(60 * SECOND, RunState.OWED), (61 * SECOND, RunState.BACKOFF)])
def test_an_agent_that_begins_nothing_for_longer_than_any_of_its_steps_takes_is_not_at_work(
    idle: timedelta, state: RunState
) -> None:
    simulation = waiting()
    simulation.queues["cashier"] = Queue(simulation.queues["cashier"].handed_out, idle=idle)
    simulation.settle()
    assert run_of(simulation, "pay").state is state


def test_what_was_handed_out_is_not_in_the_queue() -> None:
    simulation = waiting()
    simulation.take_nothing("cashier")
    simulation.settle()
    assert run_of(simulation, "pay").state is RunState.BACKOFF


def test_what_may_have_been_handed_out_a_moment_ago_is_looked_at_once_more() -> None:
    simulation = waiting()
    simulation.queues["cashier"] = Queue(len(simulation.history), quiet=SECOND)
    simulation.settle()
    run = run_of(simulation, "pay")
    assert (run.state, run.deadline) == (RunState.OWED, simulation.now + JUST_NOW)
    simulation.wait(JUST_NOW)
    assert run_of(simulation, "pay").state is RunState.BACKOFF
    assert types(simulation).count("StepQueued") == 1


def test_a_worker_that_begins_it_in_that_moment_has_all_its_time() -> None:
    simulation = waiting()
    simulation.queues["cashier"] = Queue(len(simulation.history), quiet=SECOND)
    simulation.settle()
    simulation.wait(SECOND)
    simulation.say(simulation.progress(run_of(simulation, "pay"), 1))
    assert run_of(simulation, "pay").deadline == simulation.now + 60 * SECOND


def test_what_waited_has_its_time_from_when_it_was_found_handed_out_even_if_nobody_says_that_it_began() -> None:
    simulation = waiting()
    simulation.settle()
    simulation.wait(30 * SECOND)
    simulation.queues["cashier"] = Queue(len(simulation.history))
    simulation.wait(89 * SECOND)
    assert run_of(simulation, "pay").state is RunState.OWED
    simulation.wait(SECOND)
    assert run_of(simulation, "pay").state is RunState.BACKOFF


def test_what_said_that_it_began_is_late_in_its_time() -> None:
    simulation = waiting()
    simulation.settle()
    simulation.say(simulation.progress(run_of(simulation, "pay"), 1))
    simulation.queues["cashier"] = Queue(len(simulation.history), quiet=SECOND)
    simulation.wait(60 * SECOND)
    assert run_of(simulation, "pay").state is RunState.BACKOFF


def test_a_second_look_after_the_second_is_void() -> None:
    simulation = waiting()
    simulation.queues["cashier"] = Queue(len(simulation.history), quiet=SECOND)
    simulation.settle()
    simulation.now += JUST_NOW
    due = next(iter(watched(simulation.flow)))
    again = messages.step_queued(simulation.flow, due, simulation.now + JUST_NOW, simulation.now, handed_out=True)
    assert void_of(simulation, again) is not None


def test_a_retry_waits_by_its_own_place_in_the_queue() -> None:
    simulation = begun()
    simulation.say(simulation.failed(run_of(simulation, "reserve"), "no"))
    simulation.take_nothing("warehouse")
    simulation.wait(10 * SECOND + 30 * SECOND)
    run = run_of(simulation, "reserve")
    assert (run.state, run.attempt, run.deadline) == (RunState.OWED, 2, simulation.now + 30 * SECOND)


def test_an_undo_waits_too() -> None:
    simulation = reserved()
    simulation.take_nothing("warehouse")
    simulation.say(simulation.halt(HaltMode.HALT_MODE_CANCEL, "ola", "no"))
    simulation.wait(20 * SECOND)
    effect = effect_of(simulation, "StockReserved")
    assert (effect.attempt, effect.deadline) == (1, simulation.now + 20 * SECOND)
