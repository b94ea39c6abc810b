"""Attempts: failures, time-outs, heartbeats, retries, and what is done again."""

from __future__ import annotations

from datetime import timedelta

from handrail.coordinator.decide import decide, messages
from handrail.mesh.flow import RunState
from handrail.v1.decision_pb2 import HaltMode
from handrail.v1.error_reason_pb2 import ErrorReason
from tests.support.orders import begun, emit, granted, paid, reserved, run_of, stands, void_of

CANCEL = HaltMode.HALT_MODE_CANCEL


SECOND = timedelta(seconds=1)


def test_a_retry_comes_after_its_backoff_and_not_before() -> None:
    simulation = begun()
    simulation.say(simulation.failed(run_of(simulation, "reserve"), "no"))
    simulation.wait(timedelta(seconds=9.9))
    assert run_of(simulation, "reserve").state is RunState.BACKOFF
    simulation.wait(timedelta(seconds=0.1))
    run = run_of(simulation, "reserve")
    assert (run.state, run.attempt) == (RunState.OWED, 2)
    assert run.deadline == simulation.now + timedelta(seconds=30)


def test_the_backoff_grows_and_the_attempts_end() -> None:
    simulation = begun()
    waits = []
    for _ in range(2):
        simulation.say(simulation.failed(run_of(simulation, "reserve"), "no"))
        due = simulation.next_timer()
        assert due is not None
        waits.append((due - simulation.now).total_seconds())
        simulation.wait(due - simulation.now)
    simulation.say(simulation.failed(run_of(simulation, "reserve"), "no"))
    assert waits == [10, 20]
    assert run_of(simulation, "reserve").state is RunState.FAILED
    assert stands(simulation) == "ESCALATED"


def test_a_failure_for_an_attempt_that_is_over_is_void() -> None:
    simulation = begun()
    run = run_of(simulation, "reserve")
    simulation.wait(timedelta(seconds=30))
    assert run_of(simulation, "reserve").state is RunState.BACKOFF
    assert void_of(simulation, simulation.failed(run, "no", retryable=False)) is not None
    assert run_of(simulation, "reserve").state is RunState.BACKOFF
    assert not simulation.flow.divergences, "late is not out of line"


def test_another_agents_failure_is_void() -> None:
    simulation = begun()
    void = void_of(simulation, simulation.failed(run_of(simulation, "reserve"), "no", agent="cashier"))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_WRONG_AGENT
    assert run_of(simulation, "reserve").state is RunState.OWED


def test_p4_a_time_out_of_a_step_that_is_done_is_void() -> None:
    simulation = begun()
    simulation.coordinator = False
    simulation.wait(timedelta(seconds=31))
    stale = decide(simulation.flow, simulation.now)
    emit(simulation, "reserve", "StockReserved", units=2)
    assert stale is not None
    assert void_of(simulation, stale) is not None
    assert run_of(simulation, "reserve").state is RunState.DONE


def test_p4_a_time_out_of_an_attempt_whose_heartbeat_came_first_is_void() -> None:
    simulation = begun()
    simulation.coordinator = False
    simulation.wait(timedelta(seconds=31))
    stale = decide(simulation.flow, simulation.now)
    simulation.say(simulation.progress(run_of(simulation, "reserve"), 1))
    simulation.wait(timedelta(seconds=31))
    assert stale is not None
    assert void_of(simulation, stale) is not None, "it names the deadline before the heartbeat"


def test_p4_a_time_out_by_a_clock_that_runs_ahead_is_void() -> None:
    simulation = begun()
    early = messages.step_timed_out(simulation.flow, run_of(simulation, "reserve"), simulation.now + timedelta(hours=1))
    assert void_of(simulation, early) is not None
    assert run_of(simulation, "reserve").state is RunState.OWED


def test_p4_a_retry_is_taken_once() -> None:
    simulation = begun()
    simulation.coordinator = False
    simulation.say(simulation.failed(run_of(simulation, "reserve"), "no"))
    retry = messages.retry(simulation.flow, run_of(simulation, "reserve"), simulation.now)
    simulation.store(retry)
    retry.event.attempt = 2
    again = messages.retry(simulation.flow, run_of(simulation, "reserve"), simulation.now)
    assert void_of(simulation, again) is not None, "attempt 2 runs"
    assert run_of(simulation, "reserve").attempt == 2


def test_a_heartbeat_moves_the_deadline_of_the_running_attempt_alone() -> None:
    simulation = begun()
    run = run_of(simulation, "reserve")
    simulation.wait(timedelta(seconds=20))
    simulation.say(simulation.progress(run, 1))
    assert run_of(simulation, "reserve").deadline == simulation.now + timedelta(seconds=30)
    simulation.say(simulation.failed(run, "no"))
    assert void_of(simulation, simulation.progress(run, 2)) is not None


def test_a_heartbeat_of_a_step_that_an_effect_triggered_is_not_taken_for_one_about_its_undo() -> None:
    simulation = paid(send__timeout="30s")
    simulation.wait(timedelta(seconds=20))
    assert void_of(simulation, simulation.progress(run_of(simulation, "send"), 1)) is None
    assert run_of(simulation, "send").deadline == simulation.now + timedelta(seconds=30)


def test_nor_while_that_undo_is_under_way() -> None:
    simulation = reserved()
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    assert simulation.flow.undo_targets()[0].deadline is not None
    simulation.wait(10 * SECOND)
    assert void_of(simulation, simulation.progress(run_of(simulation, "discount"), 1)) is None
    assert run_of(simulation, "discount").deadline == simulation.now + 30 * SECOND


def test_p8_what_one_attempt_left_unknown_another_ones_failure_does_not_settle() -> None:
    simulation = granted()
    simulation.wait(timedelta(seconds=70))
    simulation.say(simulation.failed(run_of(simulation, "pay"), "no", retryable=False))
    run = run_of(simulation, "pay")
    assert run.unknown == {1}
    assert run.may_have_effect
    assert stands(simulation) == "ESCALATED", "whether money was taken is for a person to find out"


def test_a_failure_that_says_so_leaves_nothing_unknown() -> None:
    simulation = granted(5, pay__retry__max_attempts="1")
    simulation.say(simulation.failed(run_of(simulation, "pay"), "no"))
    assert not run_of(simulation, "pay").may_have_effect
    assert stands(simulation) == "COMPENSATING"


def test_a_step_that_was_not_started_keeps_its_attempts() -> None:
    simulation = begun(risk=9, reserve__retry__max_attempts="1")
    simulation.say(simulation.not_started(run_of(simulation, "reserve")))
    escalation = next(iter(simulation.flow.escalations.values()))
    simulation.say(simulation.resolve(escalation.escalation_id, escalation.choices[0], "ola"))
    run = run_of(simulation, "reserve")
    assert (run.state, run.attempt, run.budget) == (RunState.OWED, 2, 2)


def test_a_step_not_started_in_a_flow_that_goes_on_is_tried_again_after_a_while() -> None:
    simulation = begun(reserve__retry__max_attempts="1")
    simulation.say(simulation.not_started(run_of(simulation, "reserve")))
    run = run_of(simulation, "reserve")
    assert (run.state, run.retry_at, run.budget) == (RunState.BACKOFF, simulation.now + 10 * SECOND, 2)
    simulation.to_next_timer()
    simulation.say(simulation.failed(run_of(simulation, "reserve"), "no"))
    assert run_of(simulation, "reserve").state is RunState.FAILED, "it had its one attempt"


def test_not_started_speaks_for_its_own_attempt() -> None:
    simulation = granted()
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    simulation.wait(timedelta(seconds=70))
    second = run_of(simulation, "pay")
    assert (second.attempt, second.unknown) == (2, frozenset({1}))
    simulation.say(simulation.not_started(second))
    assert run_of(simulation, "pay").may_have_effect, "the first attempt is still unknown"


def test_not_started_is_believed_once_the_time_is_up() -> None:
    simulation = granted(5, pay__retry__max_attempts="1")
    run = run_of(simulation, "pay")
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    simulation.wait(timedelta(seconds=60))
    assert stands(simulation) == "ESCALATED"
    simulation.say(simulation.not_started(run))
    assert run_of(simulation, "pay").state is RunState.NOT_STARTED
    assert stands(simulation) == "COMPENSATING"


def test_not_started_by_an_attempt_that_is_over_is_void() -> None:
    simulation = granted()
    run = run_of(simulation, "pay")
    simulation.say(simulation.failed(run, "no"))
    assert void_of(simulation, simulation.not_started(run)) is not None
