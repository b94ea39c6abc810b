"""Attempts of step runs: failures, timeouts, heartbeats and retries."""

from __future__ import annotations

from datetime import datetime

from handrail.mesh.flow import Flow, RunState, StepRun, Void
from handrail.mesh.flow.starts import NO_STARTS, Starts
from handrail.mesh.flow.values import replace
from handrail.mesh.fold import approvals, compensation, deadlines
from handrail.mesh.wire.envelope import Recorded, from_timestamp
from handrail.v1.decision_pb2 import StepReopened, StepTimedOut
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import DivergenceKind, StepFailed, StepNotStarted, StepProgress

_FAILED = StepFailed.DESCRIPTOR.full_name
_NOT_STARTED = StepNotStarted.DESCRIPTOR.full_name
_PROGRESS = StepProgress.DESCRIPTOR.full_name
_WRONG_TYPE = DivergenceKind.DIVERGENCE_KIND_WRONG_TYPE


def apply_failure(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies the report of an agent that an attempt failed, or was not started."""
    if recorded.type == _NOT_STARTED:
        return _not_started(flow, recorded)
    if recorded.type != _FAILED:
        return Void(f"{recorded.type} is not a failure report", ErrorReason.ERROR_REASON_WRONG_AGENT, _WRONG_TYPE)
    failed = StepFailed.FromString(recorded.event.data.value)
    if failed.undo_of:
        return compensation.undo_failed(flow, recorded, failed)
    run = _running_attempt(flow, recorded)
    if isinstance(run, Void):
        return run
    flow.runs[run.key] = _after_failure(
        run,
        recorded.time,
        f"{failed.error_class}: {failed.text}",
        retryable=failed.retryable,
        outcome_unknown=failed.outcome_unknown,
        starts=run.starts.failed(failed.error_class),
    )
    return None


def apply_progress(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies a heartbeat: it moves the deadline of the running attempt, unless it hands the attempt back.

    If the heartbeat says that the attempt still waits, the deadline moves no further than the attempt may wait.
    """
    if recorded.type != _PROGRESS:
        return Void(f"{recorded.type} is not a heartbeat", ErrorReason.ERROR_REASON_WRONG_AGENT, _WRONG_TYPE)
    if compensation.is_being_undone(flow, recorded):
        return compensation.undo_progressed(flow, recorded)
    progress = StepProgress.FromString(recorded.event.data.value)
    # A worker may hand back an attempt that has timed out before.
    run = _run_of(flow, recorded) if progress.handed_back else _running_attempt(flow, recorded)
    if isinstance(run, Void):
        return run
    if progress.handed_back:
        flow.runs[run.key] = replace(run, starts=run.starts.handed_back())
        return None
    due = recorded.time + run.step.timeout
    if progress.waiting:
        due = max(run.deadline, min(due, deadlines.wait_of_run(flow, run).until))
    flow.runs[run.key] = replace(
        run,
        deadline=due,
        counted_from=recorded.time,
        starts=run.starts.progressed(progress),
        queued=progress.waiting,
        begun=not progress.waiting,
    )
    return None


def note_refused(flow: Flow, recorded: Recorded, void: Void) -> None:
    """Notes a void answer on its step run, so that people see more than a timeout."""
    event = recorded.event
    run = flow.runs.get((event.step, event.root))
    if run is None or run.state is not RunState.OWED or run.run != event.run or run.step.agent != recorded.agent:
        return
    flow.runs[run.key] = replace(run, refused=f"its answer at {recorded.sequence} does not count: {void.text}")


def apply_timed_out(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies a timeout of an attempt; void if an outcome or a heartbeat came first."""
    timed_out = StepTimedOut.FromString(recorded.event.data.value)
    if timed_out.undo_of:
        return compensation.undo_timed_out(flow, recorded, timed_out)
    run = flow.runs.get((timed_out.step, timed_out.root))
    if (
        run is None
        or run.state is not RunState.OWED
        or run.run != timed_out.run
        or run.attempt != timed_out.attempt
        or from_timestamp(timed_out.deadline) < run.deadline
        or recorded.time < run.deadline
    ):
        return Void("the attempt is over, or has time left")
    flow.runs[run.key] = _after_failure(
        run,
        recorded.time,
        f"no outcome within {run.step.timeout.total_seconds():g} s" + (f"; {run.refused}" if run.refused else ""),
        retryable=True,
        outcome_unknown=not flow.never_begins(run),
        starts=run.starts.timed_out(),
    )
    return None


def apply_retry(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies a retry command: it begins the next attempt."""
    event = recorded.event
    run = flow.runs.get((event.step, event.root))
    if run is None or run.state is not RunState.BACKOFF or run.run != event.run or event.attempt != run.attempt + 1:
        return Void("no such attempt is due")
    if run.step.agent != recorded.agent:
        return Void(f"step {run.step.name} belongs to agent {run.step.agent}")
    flow.runs[run.key] = replace(
        run,
        state=RunState.OWED,
        attempt=event.attempt,
        refused="",
        since=recorded.time,
        deadline=recorded.time + run.step.timeout,
        counted_from=None,
        asked=recorded.sequence,
        queued=False,
        begun=False,
        retry_at=None,
        ended=None,
        starts=run.starts.next_attempt(),
    )
    return None


def apply_reopened(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies the order of a person to repeat a step: in a new run if the last one is done or undone."""
    wanted = StepReopened.FromString(recorded.event.data.value)
    if flow.is_halted:
        return Void("the flow is halted: no forward step starts", ErrorReason.ERROR_REASON_WRONG_STATUS)
    run = flow.runs.get((wanted.step, wanted.root))
    if run is None or run.state in (RunState.OWED, RunState.SUPERSEDED):
        return Void("the step can't be repeated now", ErrorReason.ERROR_REASON_WRONG_STATUS)
    if wanted.run != next_run(run):
        return Void(f"the step is in run {run.run}", ErrorReason.ERROR_REASON_WRONG_STATUS)
    reopen(flow, run, recorded.time)
    return None


def next_run(run: StepRun) -> int:
    """The number of the run in which this step would be repeated: a new one if the current run has outcomes."""
    return run.run + 1 if run.state in (RunState.DONE, RunState.UNDONE) else run.run


def reopen(flow: Flow, run: StepRun, now: datetime, *, anew: bool = False) -> None:
    """Makes the next attempt of a step run due at once; in a new run if the last one had its outcome, or if `anew`."""
    if not anew and next_run(run) == run.run:
        flow.runs[run.key] = replace(
            run, state=RunState.BACKOFF, retry_at=now, budget=run.attempt + run.step.retry.max_attempts
        )
        return
    approvals.withdraw(flow, run.outputs.values())
    flow.runs[run.key] = replace(
        run,
        run=run.run + 1,
        attempt=0,
        budget=run.step.retry.max_attempts,
        state=RunState.BACKOFF,
        retry_at=now,
        outputs={},
        output_total=0,
        ended=None,
        last_error="",
        unknown=frozenset(),
        starts=NO_STARTS,
    )


def _running_attempt(flow: Flow, recorded: Recorded) -> StepRun | Void:
    """The step run of this message, if the message is about the current attempt."""
    run = _run_of(flow, recorded)
    if isinstance(run, Void) or (run.state is RunState.OWED and run.attempt == recorded.event.attempt):
        return run
    return Void(
        f"step {run.step.name} is {run.state.name.lower()} in attempt {run.attempt}; "
        f"this is for attempt {recorded.event.attempt}"
    )


def _run_of(flow: Flow, recorded: Recorded) -> StepRun | Void:
    """The step run of this message, if the message is of the step's agent."""
    event = recorded.event
    run = flow.runs.get((event.step, event.root))
    if run is None:
        return Void(f"nothing triggered step {event.step} with root {event.root}")
    if run.step.agent != recorded.agent:
        return Void(
            f"step {event.step} belongs to agent {run.step.agent}, not {recorded.agent}",
            ErrorReason.ERROR_REASON_WRONG_AGENT,
        )
    if run.run != event.run:
        return Void(f"step {event.step} is in run {run.run}, this is for run {event.run}")
    return run


def _not_started(flow: Flow, recorded: Recorded) -> Void | None:
    """Not started: does not use up the budget. Valid for this attempt only, even past its deadline."""
    run = _run_of(flow, recorded)
    if isinstance(run, Void):
        return run
    attempt = recorded.event.attempt
    running = run.state is RunState.OWED and run.attempt == attempt
    if not running and attempt not in run.unknown:
        return Void(f"attempt {attempt} of step {run.step.name} is over")
    known = replace(run, unknown=run.unknown - {attempt})
    if running and known.unknown:
        known = _after_failure(
            run, recorded.time, "not started", retryable=True, outcome_unknown=False, starts=run.starts
        )
    elif attempt == run.attempt and not known.unknown:
        known = replace(
            known,
            state=RunState.NOT_STARTED if flow.is_halted else RunState.BACKOFF,
            retry_at=None if flow.is_halted else recorded.time + run.step.retry.backoff(attempt),
            budget=run.budget + 1,
            ended=recorded.time,
        )
    flow.runs[run.key] = known
    return None


def _after_failure(
    run: StepRun, now: datetime, error_text: str, *, retryable: bool, outcome_unknown: bool, starts: Starts
) -> StepRun:
    again = retryable and run.attempt < run.budget
    return replace(
        run,
        state=RunState.BACKOFF if again else RunState.FAILED,
        retry_at=now + run.step.retry.backoff(run.attempt) if again else None,
        ended=now,
        last_error=error_text,
        unknown=run.unknown | {run.attempt} if outcome_unknown else run.unknown,
        starts=starts,
    )
