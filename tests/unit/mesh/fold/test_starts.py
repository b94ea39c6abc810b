"""Recorded starts of handlers: late ones, poison, and deliveries that were handed back."""

from __future__ import annotations

from datetime import timedelta

from handrail.mesh.flow import RunState
from handrail.mesh.flow.starts import NO_STARTS, POISON, Starts
from tests.support.orders import begun, emit, run_of
from tests.support.simulation import Simulation


def starts(simulation: Simulation) -> Starts:
    return run_of(simulation, "reserve").starts


def begin(simulation: Simulation, counter: int) -> None:
    simulation.say(simulation.progress(run_of(simulation, "reserve"), counter, began=True))


def test_a_start_that_was_not_heard_of_again_makes_the_next_one_run_alone_and_the_third_poison() -> None:
    simulation = begun()
    assert (starts(simulation).alone, starts(simulation).on_record) == (False, False)
    for counter in (1, 2):
        begin(simulation, counter)
        assert starts(simulation).alone
        assert not starts(simulation).is_poison
    begin(simulation, 3)
    assert starts(simulation).is_poison


def test_a_start_moves_the_deadline_as_a_heartbeat_does() -> None:
    simulation = begun()
    simulation.wait(timedelta(seconds=20))
    begin(simulation, 1)
    assert run_of(simulation, "reserve").deadline == simulation.now + timedelta(seconds=30)


def test_what_a_worker_handed_back_killed_nobody_and_moves_no_deadline() -> None:
    simulation = begun()
    begin(simulation, 1)
    before = run_of(simulation, "reserve").deadline
    simulation.wait(timedelta(seconds=5))
    simulation.say(simulation.progress(run_of(simulation, "reserve"), 2, handed_back=True))
    assert not starts(simulation).alone
    assert run_of(simulation, "reserve").deadline == before


def test_what_was_handed_back_after_its_time_was_up_killed_nobody_either() -> None:
    simulation = begun()
    run = run_of(simulation, "reserve")
    begin(simulation, 1)
    simulation.wait(timedelta(seconds=30))
    assert run_of(simulation, "reserve").state is RunState.BACKOFF
    assert starts(simulation).alone
    simulation.say(simulation.progress(run, 2, handed_back=True))
    assert not starts(simulation).alone


def test_a_failure_says_that_the_handler_came_to_an_end() -> None:
    simulation = begun()
    begin(simulation, 1)
    simulation.say(simulation.failed(run_of(simulation, "reserve"), "no"))
    assert starts(simulation) == NO_STARTS


def test_the_attempt_after_poison_runs_alone_and_is_poison_after_one_more_death() -> None:
    simulation = begun()
    run = run_of(simulation, "reserve")
    simulation.say(simulation.failed(run, "died", error_class=POISON, outcome_unknown=True))
    simulation.to_next_timer()
    assert run_of(simulation, "reserve").attempt == 2
    assert (starts(simulation).alone, starts(simulation).on_record, starts(simulation).is_poison) == (True, True, False)
    begin(simulation, 1)
    assert starts(simulation).is_poison


def test_after_a_silent_attempt_the_next_start_is_on_record() -> None:
    """Where timeouts are shorter than the broker's wait for an ack, each attempt is delivered once."""
    simulation = begun()
    simulation.wait(timedelta(seconds=30))
    simulation.to_next_timer()
    assert (starts(simulation).on_record, starts(simulation).alone) == (True, False)
    begin(simulation, 1)
    simulation.to_next_timer()
    assert run_of(simulation, "reserve").state is RunState.BACKOFF
    simulation.to_next_timer()
    assert run_of(simulation, "reserve").attempt == 3
    assert starts(simulation).alone


def test_a_step_that_answers_wrongly_is_not_said_to_be_silent() -> None:
    """At once, and when its time is out; a later attempt is judged by what it says itself."""
    simulation = begun()
    broken = emit(simulation, "reserve", "StockReserved", units=-1)
    refused = run_of(simulation, "reserve").refused
    assert refused.startswith(
        f"its answer at {broken.sequence} does not count: shop.v1.StockReserved breaks its contract"
    )
    simulation.wait(timedelta(seconds=30))
    assert run_of(simulation, "reserve").last_error == f"no outcome within 30 s; {refused}"
    simulation.to_next_timer()
    assert (run_of(simulation, "reserve").attempt, run_of(simulation, "reserve").refused) == (2, "")
    simulation.to_next_timer()
    assert run_of(simulation, "reserve").last_error == "no outcome within 30 s"
