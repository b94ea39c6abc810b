"""`decide`: the next message that the coordinator appends to a flow, or None. Pure: `now` is an argument.

It is called again after every append until it returns None. A crash in between is harmless: the next call finds the
same gap. The fold knows what a flow waits for and voids everything else; `decide` records what follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from types import MappingProxyType

from handrail.coordinator.decide import approvals, messages, undos
from handrail.mesh.flow import Flow, PendingResolution, RunState, StepRun
from handrail.mesh.flow.absence import Absence, disturbing, moved
from handrail.mesh.flow.queue import Queue, Queues, Wait
from handrail.mesh.fold import deadlines, escalations, halts, resume, settled
from handrail.mesh.wire.envelope import Entry
from handrail.v1.decision_pb2 import Choice, FlowResumed, HaltMode, RuleTripped

_HALT_OF_CHOICE = {
    Choice.CHOICE_COMPENSATE: HaltMode.HALT_MODE_COMPENSATE,
    Choice.CHOICE_CANCEL: HaltMode.HALT_MODE_CANCEL,
    Choice.CHOICE_FAIL: HaltMode.HALT_MODE_FAIL,
}

_NO_QUEUES: Queues = MappingProxyType({})


def decide(flow: Flow, now: datetime, absences: Sequence[Absence] = (), queues: Queues = _NO_QUEUES) -> Entry | None:
    """Returns the next message to append, or None if nothing is due at `now`.

    `absences` are the periods without a coordinator, `queues` the queues of the agents with attempts that are due. A
    deadline that fell due only because of an absence, or while its message waited in a queue, is extended first.
    """
    if flow.first is None or flow.closed:
        return None
    return _first(_OF_STATE, flow, now) or _give_time(flow, now, absences, queues) or _first(_OF_TIME, flow, now)


def agents_due(flow: Flow, now: datetime) -> frozenset[str]:
    """Returns the agents with attempts due at `now`; `decide` needs the state of their queues."""
    late = [run.step.agent for run in flow.runs.values() if run.state is RunState.OWED and run.deadline <= now]
    late += [e.step.agent for e in flow.effects.values() if e.deadline is not None and e.deadline <= now]
    return frozenset(late)


def _give_time(flow: Flow, now: datetime, absences: Sequence[Absence], queues: Queues) -> Entry | None:
    if not absences and not queues:
        return None
    for each in deadlines.watched(flow):
        clock, wait = each.clock, each.wait
        if clock.due > now:
            continue
        if (until := moved(clock, absences, now)) is not None:
            return messages.time_credited(flow, each, disturbing(clock, absences), until, now)
        if wait is not None and wait.agent in queues and (entry := _wait(flow, each, wait, queues[wait.agent], now)):
            return entry
    return None


def _wait(flow: Flow, due: deadlines.Watched, wait: Wait, queue: Queue, now: datetime) -> Entry | None:
    if wait.in_queue(queue) and (until := wait.next_look(now)) > due.clock.due:
        return messages.step_queued(flow, due, until, now)
    if wait.may_have_left(queue):
        return messages.step_queued(flow, due, wait.last_look(now), now, handed_out=True)
    return None


def _trip(flow: Flow, now: datetime) -> Entry | None:
    trip = next((trip for trip in flow.trips.values() if not trip.recorded), None)
    if trip is None:
        return None
    message = RuleTripped(
        rule=trip.rule,
        event_id=trip.event_id,
        sequence=trip.sequence,
        then=trip.then,
        detail=trip.detail,
        rule_digest=trip.digest,
        inputs=trip.inputs,
    )
    return messages.decision(flow, message, about=trip.rule, now=now)


def _wish(flow: Flow, now: datetime) -> Entry | None:
    resolution = flow.pending_resolution
    if resolution is None:
        return None
    if resolution.choice == Choice.CHOICE_REJECT:
        return approvals.rejection(flow, resolution, now)
    if resolution.choice == Choice.CHOICE_RESUME:
        return _resume(flow, resolution, now)
    return messages.halted(flow, _HALT_OF_CHOICE[resolution.choice], resolution.reason, now, by=resolution.by)


def _resume(flow: Flow, resolution: PendingResolution, now: datetime) -> Entry | None:
    if not resume.may_resume(flow):
        return None
    return messages.decision(flow, FlowResumed(by=resolution.by, reason=resolution.reason), about="", now=now)


def _halt(flow: Flow, now: datetime) -> Entry | None:
    due = halts.due(flow)
    return None if due is None else messages.halted(flow, due.mode, due.reason, now)


def _close(flow: Flow, now: datetime) -> Entry | None:
    final = settled(flow)
    if final is None or flow.halt is None:
        return None
    return messages.closed(flow, final, flow.halt.reason, now)


def _attempts(flow: Flow, now: datetime) -> Entry | None:
    return next((entry for run in flow.awaited_runs() if (entry := _attempt(flow, run, now)) is not None), None)


def _attempt(flow: Flow, run: StepRun, now: datetime) -> Entry | None:
    match run.state:
        case RunState.OWED if now >= run.deadline:
            return messages.step_timed_out(flow, run, now)
        case RunState.BACKOFF if run.retry_at is not None and now >= run.retry_at:
            return messages.retry(flow, run, now)
    return None


def _matter(flow: Flow, now: datetime) -> Entry | None:
    matter = escalations.due(flow, now)
    return None if matter is None else messages.escalated(flow, matter, now)


_Question = Callable[[Flow, datetime], Entry | None]
_OF_STATE: tuple[_Question, ...] = (_trip, _wish, _halt, _close)
_OF_TIME: tuple[_Question, ...] = (approvals.proposals, _attempts, undos.undos, _matter)


def _first(questions: tuple[_Question, ...], flow: Flow, now: datetime) -> Entry | None:
    for ask in questions:
        entry = ask(flow, now)
        if entry is not None:
            return entry
    return None
