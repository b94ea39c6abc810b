"""Attempts of step runs: failures, time-outs, heartbeats and retries."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from google.protobuf.message import DecodeError

from handrail.mesh.envelope import Recorded, from_timestamp
from handrail.mesh.flow import Flow, RunState, StepRun, Void
from handrail.mesh.fold import compensation
from handrail.v1.decision_pb2 import StepReopened, StepTimedOut
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.event_pb2 import Event
from handrail.v1.failure_pb2 import StepFailed, StepNotStarted, StepProgress

_FAILED = StepFailed.DESCRIPTOR.full_name
_NOT_STARTED = StepNotStarted.DESCRIPTOR.full_name
_PROGRESS = StepProgress.DESCRIPTOR.full_name


def apply_failure(flow: Flow, recorded: Recorded) -> Void | None:
    """An agent reports that an attempt failed, or that it was not started."""
    if recorded.type == _NOT_STARTED:
        return _not_started(flow, recorded)
    if recorded.type != _FAILED:
        return Void(f"{recorded.type} reports no failure", ErrorReason.ERROR_REASON_WRONG_AGENT)
    try:
        failed = StepFailed.FromString(recorded.event.data.value)
    except DecodeError as error:
        return Void(f"its data is no StepFailed: {error}", ErrorReason.ERROR_REASON_MALFORMED)
    if failed.undo_of:
        return compensation.undo_failed(flow, recorded, failed)
    run = running_attempt(flow, recorded)
    if isinstance(run, Void):
        return run
    error_text = f"{failed.error_class}: {failed.text}"
    flow.runs[run.key] = _after_failure(
        run, recorded.time, error_text, retryable=failed.retryable, outcome_unknown=failed.outcome_unknown
    )
    return None


def apply_progress(flow: Flow, recorded: Recorded) -> Void | None:
    """A heartbeat moves the deadline of the running attempt."""
    if recorded.type != _PROGRESS:
        return Void(f"{recorded.type} is no heartbeat", ErrorReason.ERROR_REASON_WRONG_AGENT)
    if recorded.event.root in flow.effects:
        return compensation.undo_progressed(flow, recorded)
    run = running_attempt(flow, recorded)
    if isinstance(run, Void):
        return run
    flow.runs[run.key] = replace(run, deadline=recorded.time + run.step.timeout)
    return None


def apply_timed_out(flow: Flow, recorded: Recorded) -> Void | None:
    """The coordinator found an attempt past its deadline; void if an outcome or a heartbeat came first."""
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
        f"no outcome within {run.step.timeout}",
        retryable=True,
        outcome_unknown=True,
    )
    return None


def apply_retry(flow: Flow, recorded: Recorded) -> Void | None:
    """The command to try again begins the next attempt."""
    event = recorded.event
    run = flow.runs.get((event.step, event.root))
    if (
        run is None
        or run.state not in (RunState.BACKOFF, RunState.NOT_STARTED)
        or run.run != event.run
        or event.attempt != run.attempt + 1
    ):
        return Void("no such attempt is due")
    if run.step.agent != recorded.agent:
        return Void(f"step {run.step.name} belongs to agent {run.step.agent}")
    flow.runs[run.key] = replace(
        run,
        state=RunState.OWED,
        attempt=event.attempt,
        since=recorded.time,
        deadline=recorded.time + run.step.timeout,
        retry_at=None,
    )
    return None


def apply_reopened(flow: Flow, recorded: Recorded) -> Void | None:
    """A person has a step done again: in a new run where the last one is done or undone."""
    wanted = StepReopened.FromString(recorded.event.data.value)
    run = flow.runs.get((wanted.step, wanted.root))
    if run is None or run.state not in (
        RunState.FAILED,
        RunState.BACKOFF,
        RunState.DONE,
        RunState.UNDONE,
        RunState.NOT_STARTED,
    ):
        return Void("the step can't be done again now", ErrorReason.ERROR_REASON_WRONG_STATUS)
    if wanted.run != next_run(run):
        return Void(f"the step is in run {run.run}", ErrorReason.ERROR_REASON_WRONG_STATUS)
    reopen(flow, run, recorded.time)
    return None


def next_run(run: StepRun) -> int:
    """The run in which this step would be done again: raised where outcomes of the present one are there."""
    return run.run + 1 if run.state in (RunState.DONE, RunState.UNDONE) else run.run


def reopen(flow: Flow, run: StepRun, now: datetime) -> None:
    """Make the next attempt of a step run due at once, in a new run where the last one had its outcome."""
    number = next_run(run)
    raised = number != run.run
    attempt = 0 if raised else run.attempt
    flow.runs[run.key] = replace(
        run,
        run=number,
        attempt=attempt,
        budget=attempt + run.step.retry.max_attempts,
        state=RunState.BACKOFF,
        retry_at=now,
        outputs={} if raised else run.outputs,
        output_total=0 if raised else run.output_total,
        ended=None,
        outcome_unknown=False if raised else run.outcome_unknown,
    )
    for escalation in list(flow.escalations.values()):
        if escalation.step == run.step.name and escalation.subject_id.startswith(f"{run.root}:"):
            del flow.escalations[escalation.escalation_id]


def running_attempt(flow: Flow, recorded: Recorded) -> StepRun | Void:
    """The step run whose current attempt this message is about."""
    event: Event = recorded.event
    run = flow.runs.get((event.step, event.root))
    if run is None:
        return Void(f"nothing triggered step {event.step} with root {event.root}")
    if run.step.agent != recorded.agent:
        return Void(
            f"step {event.step} belongs to agent {run.step.agent}, not {recorded.agent}",
            ErrorReason.ERROR_REASON_WRONG_AGENT,
        )
    if run.state is not RunState.OWED or run.run != event.run or run.attempt != event.attempt:
        return Void(
            f"step {event.step} is {run.state.name.lower()} in run {run.run}, attempt {run.attempt}; "
            f"this is for run {event.run}, attempt {event.attempt}"
        )
    return run


def _not_started(flow: Flow, recorded: Recorded) -> Void | None:
    run = running_attempt(flow, recorded)
    if isinstance(run, Void):
        return run
    flow.runs[run.key] = replace(run, state=RunState.NOT_STARTED, ended=recorded.time, outcome_unknown=False)
    return None


def _after_failure(run: StepRun, now: datetime, error_text: str, *, retryable: bool, outcome_unknown: bool) -> StepRun:
    again = retryable and run.attempt < run.budget
    return replace(
        run,
        state=RunState.BACKOFF if again else RunState.FAILED,
        retry_at=now + run.step.retry.backoff(run.attempt) if again else None,
        ended=now,
        last_error=error_text,
        outcome_unknown=outcome_unknown,
    )
