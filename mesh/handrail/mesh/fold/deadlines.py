"""Deadlines of a flow. An absence of the coordinator, or a wait in a queue, moves a deadline that fell due.

One list, `watched`, serves both sides: the coordinator moves deadlines on it, and the fold treats all other moves as
void.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from handrail.mesh.flow import Effect, Flow, Proposal, ProposalState, RunState, StepRun, Void
from handrail.mesh.flow.absence import Absence, Clock, moved
from handrail.mesh.flow.queue import Wait
from handrail.mesh.flow.values import replace
from handrail.mesh.fold import escalations
from handrail.mesh.wire.envelope import Recorded, from_timestamp, timestamp
from handrail.v1 import decision_pb2 as pb

_OVER = Void("the deadline is over, or is not due")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A watched deadline: its identity, its clock, and `wait` if the attempt may be in a queue, which none is that is
    answered through the API."""

    kind: pb.DeadlineKind.ValueType
    clock: Clock
    subject_id: str = ""
    step: str = ""
    run: int = 0
    attempt: int = 0
    gate: str = ""
    wait: Wait | None = None

    @property
    def what(self) -> pb.Deadline:
        """The deadline as messages identify it."""
        return pb.Deadline(
            kind=self.kind,
            subject_id=self.subject_id,
            step=self.step,
            run=self.run,
            attempt=self.attempt,
            gate=self.gate,
            due_time=timestamp(self.clock.due),
        )


def watched(flow: Flow) -> Iterator[Watched]:
    """All deadlines that currently run in a flow."""
    for run in flow.awaited_runs():
        if run.state is RunState.OWED:
            yield _of_run(flow, run)
    for effect in flow.undo_targets():
        if effect.deadline is not None:
            yield _of_undo(flow, effect, effect.deadline)
    for proposal in flow.proposals.values():
        yield from _of_proposal(proposal)
    if escalations.waits_for_deadline(flow):
        clock = Clock(flow.counted_from or flow.start_time, flow.deadline)
        yield Watched(kind=pb.DeadlineKind.DEADLINE_KIND_FLOW, clock=clock)


def apply_credited(flow: Flow, recorded: Recorded) -> Void | None:
    """Moves a deadline. Void if it is over, already moved or not due, or if the absences do not give that much time."""
    credited = pb.TimeCredited.FromString(recorded.event.data.value)
    found = _find(flow, credited.what, recorded)
    if found is None:
        return _OVER
    until = _time(credited.until)
    spans = [(_time(each.start_time), _time(each.end_time)) for each in credited.absences]
    absences = [Absence(start, end) for start, end in spans if start is not None and end is not None]
    most = moved(found.clock, absences, recorded.time)
    if until is None or most is None or not found.clock.due < until <= most:
        return Void("the absences that it names do not give that much time")
    _move(flow, found, recorded.time, until)
    return None


def apply_queued(flow: Flow, recorded: Recorded) -> Void | None:
    """Lets an attempt that no worker has begun wait on. Void if it is over, or may not wait any longer."""
    queued = pb.StepQueued.FromString(recorded.event.data.value)
    found = _find(flow, queued.what, recorded)
    if found is None or found.wait is None:
        return _OVER
    until = _time(queued.until)
    wait, now = found.wait, recorded.time
    most = wait.last_look(now) if queued.handed_out else wait.next_look(now)
    if wait.begun or until is None or not found.clock.due < until <= most:
        return Void("it may not wait that long to be begun")
    _move(flow, found, now, until)
    _mark(flow, found, queued=not queued.handed_out, begun=queued.handed_out)
    return None


def wait_of_run(flow: Flow, run: StepRun) -> Wait:
    """How long the attempt of a step run may wait to be begun."""
    step = run.step
    patience = None if step.start_within is not None else _longest(flow, step.agent)
    until = run.since + (step.start_within or flow.template.deadline)
    return Wait(
        agent=step.agent,
        sequence=run.asked,
        since=run.since,
        timeout=step.timeout,
        until=until,
        patience=patience,
        queued=run.queued,
        begun=run.begun,
    )


def wait_of_undo(flow: Flow, effect: Effect) -> Wait:
    """How long the attempt at a requested undo may wait to be begun."""
    agent, since = effect.step.agent, _asked(effect)
    return Wait(
        agent=agent,
        sequence=effect.asked,
        since=since,
        timeout=_undo_timeout(effect),
        until=since + flow.template.deadline,
        patience=_longest(flow, agent),
        queued=effect.queued,
        begun=effect.begun,
    )


def _of_run(flow: Flow, run: StepRun) -> Watched:
    return Watched(
        kind=pb.DeadlineKind.DEADLINE_KIND_STEP,
        clock=Clock(run.counted_from or run.since, run.deadline, run.step.timeout),
        subject_id=run.root,
        step=run.step.name,
        run=run.run,
        attempt=run.attempt,
        wait=None if run.step.external else wait_of_run(flow, run),
    )


def _of_undo(flow: Flow, effect: Effect, due: datetime) -> Watched:
    return Watched(
        kind=pb.DeadlineKind.DEADLINE_KIND_UNDO,
        clock=Clock(effect.counted_from or _asked(effect), due, _undo_timeout(effect)),
        subject_id=effect.recorded.event_id,
        step=effect.step.name,
        run=effect.recorded.event.run,
        attempt=effect.attempt,
        wait=wait_of_undo(flow, effect),
    )


def _of_proposal(proposal: Proposal) -> Iterator[Watched]:
    asked = proposal.requested_at
    if proposal.state is not ProposalState.PENDING or asked is None:
        return
    for ask in proposal.asks:
        due = proposal.expiry(ask)
        if due is not None:
            yield Watched(
                kind=pb.DeadlineKind.DEADLINE_KIND_APPROVAL,
                clock=Clock(ask.counted_from or asked, due),
                subject_id=proposal.recorded.event_id,
                gate=ask.gate.name,
            )


def _asked(effect: Effect) -> datetime:
    if effect.since is None:
        raise ValueError(f"no undo of step {effect.step.name} was requested")
    return effect.since


def _undo_timeout(effect: Effect) -> timedelta:
    return effect.step.undo.timeout if effect.step.undo is not None else timedelta()


def _longest(flow: Flow, agent: str) -> timedelta:
    """The longest timeout among the steps and undos of an agent: it may begin nothing for so long and still be busy."""
    steps = [step for step in flow.template.steps.values() if step.agent == agent]
    times = [step.timeout for step in steps] + [step.undo.timeout for step in steps if step.undo is not None]
    return max(times, default=timedelta())


def _find(flow: Flow, what: pb.Deadline, recorded: Recorded) -> Watched | None:
    """The deadline that a message names, if it was due when the message was stored."""
    found = next((each for each in watched(flow) if each.what == what), None)
    return None if found is None or recorded.time < found.clock.due else found


def _mark(flow: Flow, watched: Watched, *, queued: bool, begun: bool) -> None:
    if watched.kind == pb.DeadlineKind.DEADLINE_KIND_UNDO:
        effect = flow.effects[watched.subject_id]
        flow.effects[watched.subject_id] = replace(effect, queued=queued, begun=begun)
    else:
        run = flow.runs[watched.step, watched.subject_id]
        flow.runs[run.key] = replace(run, queued=queued, begun=begun)


def _time(stamp: Timestamp) -> datetime | None:
    try:
        return from_timestamp(stamp)
    except (ValueError, OverflowError):
        return None


def _move(flow: Flow, watched: Watched, now: datetime, until: datetime) -> None:
    about = watched.subject_id
    match watched.kind:
        case pb.DeadlineKind.DEADLINE_KIND_STEP:
            key = (watched.step, about)
            flow.runs[key] = replace(flow.runs[key], deadline=until, counted_from=now)
        case pb.DeadlineKind.DEADLINE_KIND_UNDO:
            flow.effects[about] = replace(flow.effects[about], deadline=until, counted_from=now)
        case pb.DeadlineKind.DEADLINE_KIND_APPROVAL:
            flow.proposals[about] = flow.proposals[about].moved_expiry(watched.gate, now, until)
        case pb.DeadlineKind.DEADLINE_KIND_FLOW:
            flow.credit += until - flow.deadline
            flow.counted_from = now
