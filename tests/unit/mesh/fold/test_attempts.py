"""Attempts: failures, time-outs, heartbeats, retries, and what is done again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from handrail.coordinator.decide import decide, messages
from handrail.mesh.flow import ProposalState, RunState, Verdict
from handrail.mesh.flow.starts import NO_STARTS, POISON, Starts
from handrail.v1.decision_pb2 import HaltMode
from handrail.v1.error_reason_pb2 import ErrorReason
from tests.support.orders import begun, emit, granted, make, paid, proposal_of, reserved, run_of, stands, types, void_of
from tests.support.simulation import Simulation

CANCEL = HaltMode.HALT_MODE_CANCEL
SECOND = timedelta(seconds=1)


def to_next_timer(simulation: Simulation) -> None:
    due = simulation.next_timer()
    assert due is not None
    simulation.wait(due - simulation.now)


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
    to_next_timer(simulation)
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


def test_done_again_is_a_new_run_with_a_new_answer() -> None:
    simulation = reserved()
    first = run_of(simulation, "reserve")
    simulation.say(simulation.reopen(first, "ola"))
    run = run_of(simulation, "reserve")
    assert (run.run, run.attempt, run.state, dict(run.outputs)) == (1, 1, RunState.OWED, {})
    emit(simulation, "reserve", "StockReserved", units=2)
    assert len(simulation.flow.facts_by_type["shop.v1.StockReserved"]) == 2


def test_a_failed_step_is_done_again_in_the_same_run_with_all_its_attempts() -> None:
    simulation = begun()
    simulation.say(simulation.failed(run_of(simulation, "reserve"), "no", retryable=False))
    simulation.say(simulation.reopen(run_of(simulation, "reserve"), "ola"))
    run = run_of(simulation, "reserve")
    assert (run.run, run.attempt, run.budget) == (0, 2, 4)
    assert stands(simulation) == "RUNNING"


def test_doing_a_step_again_takes_back_what_it_proposed() -> None:
    simulation = granted(30)
    first = proposal_of(simulation)
    simulation.say(simulation.reopen(run_of(simulation, "discount"), "ola"))
    assert simulation.flow.proposals[first.recorded.event_id].state is ProposalState.WITHDRAWN
    assert void_of(simulation, simulation.vote(first, "ann", ["sales_lead"])) is not None


def test_a_step_that_is_owed_is_not_done_again() -> None:
    simulation = begun()
    void = void_of(simulation, simulation.reopen(run_of(simulation, "reserve"), "ola"))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_WRONG_STATUS


def test_no_step_is_done_again_in_a_halted_flow() -> None:
    simulation = reserved()
    simulation.coordinator = False
    reopen = simulation.reopen(run_of(simulation, "reserve"), "ola")
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    assert void_of(simulation, reopen) is not None
    assert run_of(simulation, "reserve").state is RunState.DONE


def test_p4_a_reopening_that_lost_a_race_is_void() -> None:
    simulation = reserved()
    late = simulation.reopen(run_of(simulation, "reserve"), "ola")
    simulation.say(simulation.progress(run_of(simulation, "discount"), 1))
    simulation.say(simulation.reopen(run_of(simulation, "reserve"), "eva"))
    emit(simulation, "reserve", "StockReserved", units=2)
    assert void_of(simulation, late) is not None, "the step has been done again"
    assert run_of(simulation, "reserve").run == 1


@pytest.mark.parametrize(
    "may_have_started,expected", [(False, Verdict.ANSWER_NOT_STARTED), (True, Verdict.RUN)], ids=["first", "again"]
)
def test_p8_in_a_halted_flow_only_what_may_have_started_runs(may_have_started: bool, expected: Verdict) -> None:
    simulation = granted()
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    assert verdict(simulation, "pay", 1, may_have_started=may_have_started) is expected


def test_p8_a_retry_in_a_halted_flow_runs_where_an_earlier_attempt_may_have_started() -> None:
    unknown, known = granted(), granted()
    unknown.wait(timedelta(seconds=60))
    known.say(known.failed(run_of(known, "pay"), "no"))
    for simulation in (unknown, known):
        simulation.wait(timedelta(seconds=10))
        simulation.say(simulation.halt(CANCEL, "ola", "no"))
    assert verdict(unknown, "pay", 2) is Verdict.RUN
    assert verdict(known, "pay", 2) is Verdict.ANSWER_NOT_STARTED


def test_p8_what_can_not_be_undone_and_was_triggered_in_a_halted_flow_is_never_begun() -> None:
    """A payment that was under way when the flow was cancelled comes in: the parcel it leads to is not sent, although
    the worker that was handed it is silent.
    """
    simulation = granted()
    simulation.coordinator = False
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    emit(simulation, "pay", "PaymentTaken", amount=95)
    assert verdict(simulation, "send", 1, may_have_started=True) is Verdict.ANSWER_NOT_STARTED
    simulation.coordinator = True
    simulation.wait(run_of(simulation, "send").step.timeout + timedelta(seconds=1))
    assert run_of(simulation, "send").attempt == 1, "nobody is asked to try again"
    assert not run_of(simulation, "send").unknown
    assert not simulation.flow.escalations
    assert simulation.flow.effects[run_of(simulation, "send").root].attempt == 1, "the payment is taken back"


def test_p8_what_can_not_be_undone_runs_again_where_it_may_have_begun_before_the_halt() -> None:
    simulation = paid()
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    assert verdict(simulation, "send", 1, may_have_started=True) is Verdict.RUN


def test_a_step_without_effect_never_runs_in_a_halted_flow() -> None:
    simulation = reserved()
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    assert verdict(simulation, "discount", 1, may_have_started=True) is Verdict.ANSWER_NOT_STARTED


def test_a_rule_that_tripped_halts_at_once_for_agents() -> None:
    simulation = Simulation(begun().template)
    simulation.coordinator = False
    simulation.say(simulation.start(make("OrderPlaced", risk=9), agent="storefront"))
    assert simulation.flow.halt is None
    assert verdict(simulation, "reserve", 1) is Verdict.ANSWER_NOT_STARTED


def test_a_delivery_that_is_no_longer_wanted_is_dropped() -> None:
    simulation = begun()
    assert verdict(simulation, "reserve", 1) is Verdict.RUN
    assert verdict(simulation, "reserve", 2) is Verdict.DROP
    assert verdict(simulation, "reserve", 1, run=1) is Verdict.DROP
    assert verdict(simulation, "pay", 1) is Verdict.DROP
    emit(simulation, "reserve", "StockReserved", units=2)
    assert verdict(simulation, "reserve", 1) is Verdict.DROP


def test_an_agent_that_comes_back_to_a_halted_flow_says_that_it_never_started() -> None:
    simulation = granted()
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    simulation.wait(timedelta(seconds=60))
    assert run_of(simulation, "pay").state is RunState.BACKOFF
    assert verdict(simulation, "pay", 1) is Verdict.ANSWER_NOT_STARTED
    assert verdict(simulation, "pay", 1, may_have_started=True) is Verdict.DROP


def verdict(
    simulation: Simulation, step: str, attempt: int, *, may_have_started: bool = False, run: int = 0
) -> Verdict:
    roots = [each.root for each in simulation.flow.runs.values() if each.step.name == step]
    return simulation.flow.verdict(
        step=step, root=roots[-1] if roots else "", run=run, attempt=attempt, may_have_started=may_have_started
    )


def test_nothing_is_retried_in_a_halted_flow_that_leaves_nothing_unknown() -> None:
    simulation = reserved()
    simulation.say(simulation.failed(run_of(simulation, "discount"), "no"))
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    simulation.wait(timedelta(hours=1))
    assert "DiscountGranted" not in types(simulation)


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
    to_next_timer(simulation)
    assert run_of(simulation, "reserve").attempt == 2
    assert (starts(simulation).alone, starts(simulation).on_record, starts(simulation).is_poison) == (True, True, False)
    begin(simulation, 1)
    assert starts(simulation).is_poison


def test_after_a_silent_attempt_the_next_start_is_on_record() -> None:
    """Where timeouts are shorter than the broker's wait for an ack, each attempt is delivered once."""
    simulation = begun()
    simulation.wait(timedelta(seconds=30))
    to_next_timer(simulation)
    assert (starts(simulation).on_record, starts(simulation).alone) == (True, False)
    begin(simulation, 1)
    to_next_timer(simulation)
    assert run_of(simulation, "reserve").state is RunState.BACKOFF
    to_next_timer(simulation)
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
    to_next_timer(simulation)
    assert (run_of(simulation, "reserve").attempt, run_of(simulation, "reserve").refused) == (2, "")
    to_next_timer(simulation)
    assert run_of(simulation, "reserve").last_error == "no outcome within 30 s"
