"""`decide`: what the coordinator appends next to a flow as it stands, or None. Pure: `now` is an argument.

Asked again after every append until it answers None; a crash in between is harmless, because the same gap is found
again. The fold knows what a flow is waiting for, and holds void what it was not; `decide` puts it on record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from handrail.coordinator import approve, entries, undo
from handrail.mesh.absence import Absence, disturbing, moved
from handrail.mesh.envelope import Entry
from handrail.mesh.flow import Flow, RunState, StepRun, Wish
from handrail.mesh.fold import credit, halts, matters, resuming, settled
from handrail.mesh.template import Consequence
from handrail.v1.decision_pb2 import Choice, FlowResumed, HaltMode, RuleAction, RuleTripped

_HALT_OF_CHOICE = {
    Choice.CHOICE_COMPENSATE: HaltMode.HALT_MODE_COMPENSATE,
    Choice.CHOICE_CANCEL: HaltMode.HALT_MODE_CANCEL,
    Choice.CHOICE_FAIL: HaltMode.HALT_MODE_FAIL,
}

_ACTION_OF_RULE = {
    Consequence.ESCALATE: RuleAction.RULE_ACTION_ESCALATE,
    Consequence.COMPENSATE: RuleAction.RULE_ACTION_COMPENSATE,
    Consequence.FAIL: RuleAction.RULE_ACTION_FAIL,
    Consequence.COMPLETE: RuleAction.RULE_ACTION_COMPLETE,
}


def decide(flow: Flow, now: datetime, absences: Sequence[Absence] = ()) -> Entry | None:
    """The next message to append, or None when nothing is due at `now`.

    `absences` are the times in which no coordinator was there: what is due for them alone is given time first.
    """
    if flow.first is None or flow.closed:
        return None
    return _first(_OF_STATE, flow, now) or _credit(flow, now, absences) or _first(_OF_TIME, flow, now)


def _credit(flow: Flow, now: datetime, absences: Sequence[Absence]) -> Entry | None:
    if not absences:
        return None
    for what, clock in credit.watched(flow):
        if clock.due <= now and (until := moved(clock, absences, now)) is not None:
            return entries.time_credited(flow, what, disturbing(clock, absences), until, now)
    return None


def _trip(flow: Flow, now: datetime) -> Entry | None:
    trip = next((trip for trip in flow.trips.values() if not trip.recorded), None)
    if trip is None:
        return None
    message = RuleTripped(
        rule=trip.rule,
        event_id=trip.event_id,
        sequence=trip.sequence,
        then=_ACTION_OF_RULE[trip.then],
        detail=trip.detail,
        rule_digest=trip.digest,
        inputs=trip.inputs,
    )
    return entries.decision(flow, message, about=trip.rule, now=now)


def _wish(flow: Flow, now: datetime) -> Entry | None:
    wish = flow.wish
    if wish is None:
        return None
    if wish.choice == Choice.CHOICE_REJECT:
        return approve.rejection(flow, wish, now)
    if wish.choice == Choice.CHOICE_RESUME:
        return _resume(flow, wish, now)
    return entries.halted(flow, _HALT_OF_CHOICE[wish.choice], wish.reason, now, by=wish.by)


def _resume(flow: Flow, wish: Wish, now: datetime) -> Entry | None:
    if not resuming.may_resume(flow):
        return None
    return entries.decision(flow, FlowResumed(by=wish.by, reason=wish.reason), about="", now=now)


def _halt(flow: Flow, now: datetime) -> Entry | None:
    due = halts.due(flow)
    return None if due is None else entries.halted(flow, due.mode, due.reason, now)


def _close(flow: Flow, now: datetime) -> Entry | None:
    final = settled(flow)
    if final is None or flow.halt is None:
        return None
    return entries.closed(flow, final, flow.halt.reason, now)


def _attempts(flow: Flow, now: datetime) -> Entry | None:
    return next((entry for run in flow.awaited_runs() if (entry := _attempt(flow, run, now)) is not None), None)


def _attempt(flow: Flow, run: StepRun, now: datetime) -> Entry | None:
    match run.state:
        case RunState.OWED if now >= run.deadline:
            return entries.step_timed_out(flow, run, now)
        case RunState.BACKOFF if run.retry_at is not None and now >= run.retry_at:
            return entries.retry(flow, run, now)
    return None


def _matter(flow: Flow, now: datetime) -> Entry | None:
    matter = matters.due(flow, now)
    return None if matter is None else entries.escalated(flow, matter, now)


_Question = Callable[[Flow, datetime], Entry | None]
_OF_STATE: tuple[_Question, ...] = (_trip, _wish, _halt, _close)
_OF_TIME: tuple[_Question, ...] = (approve.proposals, _attempts, undo.undos, _matter)


def _first(questions: tuple[_Question, ...], flow: Flow, now: datetime) -> Entry | None:
    return next((entry for ask in questions if (entry := ask(flow, now)) is not None), None)
