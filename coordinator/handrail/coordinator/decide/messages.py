"""Builds entries: the messages that the coordinator appends to a flow, from the flow they are based on. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Effect, Flow, Proposal, StepRun
from handrail.mesh.flow.absence import Absence
from handrail.mesh.fold import halts
from handrail.mesh.fold.deadlines import Watched
from handrail.mesh.fold.escalations import Matter
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import COMMANDS, Entry, Recorded, pack, timestamp, type_of
from handrail.mesh.wire.subjects import COORDINATOR, Address, Kind
from handrail.v1.decision_pb2 import (
    ApprovalRequested,
    Escalated,
    FlowClosed,
    FlowHalted,
    FlowStatus,
    GateRequest,
    HaltMode,
    StepQueued,
    StepTimedOut,
    TimeCredited,
)
from handrail.v1.event_pb2 import Event


def decision(flow: Flow, message: Message, *, about: str, now: datetime, step: str = "", root: str = "") -> Entry:
    """Builds a decision about `about`, which identifies the matter within the decision's type.

    The event's id is derived from `about` and the sequence that the decision is based on.
    """
    return packed_decision(flow, pack(message), about=about, now=now, step=step, root=root)


def packed_decision(flow: Flow, data: Any, *, about: str, now: datetime, step: str = "", root: str = "") -> Entry:
    """Builds a decision from its packed message; see `decision`."""
    name = type_of(data)
    event_id = ids.decision_id(flow.flow_id, name, about, flow.last_sequence)
    event = _event(flow, event_id, data, now)
    event.step, event.root = step, root
    return Entry(_address(flow, Kind.DECISION, COORDINATOR, event_id, name), event)


def release(proposal: Proposal) -> Entry:
    """Builds the release of a proposal: same id, same bytes, and the proposer's agent token."""
    recorded = proposal.recorded
    return Entry(recorded.address._replace(kind=Kind.RELEASED), recorded.event)


def retry(flow: Flow, run: StepRun, now: datetime) -> Entry:
    """Builds the command to handle the trigger of a step run again, as its next attempt."""
    attempt = run.attempt + 1
    event_id = ids.attempt_id(Kind.RETRY.value, flow.flow_id, run.step.name, run.root, run.run, attempt)
    event = _command(flow, event_id, run.trigger, now)
    event.step, event.root, event.run, event.attempt = run.step.name, run.root, run.run, attempt
    return Entry(_address(flow, Kind.RETRY, run.step.agent, event_id, run.trigger.type), event)


def undo(flow: Flow, effect: Effect, now: datetime) -> Entry:
    """Builds the command to undo an effect, as its next attempt."""
    undone, attempt = effect.recorded, effect.attempt + 1
    event_id = ids.attempt_id(
        Kind.UNDO.value, flow.flow_id, effect.step.name, undone.event_id, undone.event.run, attempt
    )
    event = _command(flow, event_id, undone, now)
    event.step, event.root, event.run, event.attempt = (
        effect.step.name,
        undone.event_id,
        undone.event.run,
        attempt,
    )
    return Entry(_address(flow, Kind.UNDO, effect.step.agent, event_id, undone.type), event)


def approval_requested(flow: Flow, proposal: Proposal, now: datetime) -> Entry:
    """Asks people about a proposal: one request lists every gate that needs approval."""
    event_id = proposal.recorded.event_id
    request = ApprovalRequested(proposal_id=event_id, digest=proposal.digest)
    for ask in proposal.asks:
        gate = ask.gate
        wanted = GateRequest(
            gate=gate.name,
            roles=sorted(gate.roles),
            quorum=gate.quorum,
            not_the_requester=gate.not_the_requester,
            requester=ask.requester,
            reason=ask.reason,
        )
        if gate.expires_after is not None:
            wanted.expire_time.CopyFrom(timestamp(now + gate.expires_after))
        request.gates.append(wanted)
    return decision(flow, request, about=event_id, now=now, step=proposal.recorded.event.step)


def step_timed_out(flow: Flow, run: StepRun, now: datetime) -> Entry:
    """Records that an attempt of a step produced no outcome in time."""
    message = StepTimedOut(
        step=run.step.name,
        root=run.root,
        run=run.run,
        attempt=run.attempt,
        deadline=timestamp(run.deadline),
    )
    return decision(flow, message, about=run.subject, now=now, step=run.step.name, root=run.root)


def undo_timed_out(flow: Flow, effect: Effect, deadline: datetime, now: datetime) -> Entry:
    """Records that an attempt to undo produced no outcome in time."""
    undone = effect.recorded
    message = StepTimedOut(
        step=effect.step.name,
        root=undone.event_id,
        run=undone.event.run,
        attempt=effect.attempt,
        undo_of=undone.event_id,
        deadline=timestamp(deadline),
    )
    return decision(flow, message, about=effect.subject, now=now, step=effect.step.name)


def time_credited(flow: Flow, due: Watched, absences: Iterable[Absence], until: datetime, now: datetime) -> Entry:
    """Extends a deadline that fell due during an absence of the coordinator."""
    message = TimeCredited(what=due.what, until=timestamp(until))
    for absence in absences:
        message.absences.add(start_time=timestamp(absence.start), end_time=timestamp(absence.end))
    return decision(flow, message, about=_deadline(due), now=now, step=due.step)


def step_queued(flow: Flow, due: Watched, until: datetime, now: datetime, *, handed_out: bool = False) -> Entry:
    """Extends the deadline of an attempt that no worker has begun, or that one may be about to begin."""
    message = StepQueued(what=due.what, until=timestamp(until), handed_out=handed_out)
    return decision(flow, message, about=_deadline(due), now=now, step=due.step)


def _deadline(due: Watched) -> str:
    return f"{due.kind}:{due.step}:{due.subject_id}:{due.gate}"


def halted(
    flow: Flow,
    mode: HaltMode.ValueType,
    reason: str,
    now: datetime,
    *,
    by: str = "",
    to_step: str = "",
    keep_effects: bool = False,
    run_again: Iterable[str] = (),
) -> Entry:
    """Halts the flow: no forward step starts any more."""
    message = FlowHalted(
        mode=mode,
        reason=reason,
        by=by,
        to_step=to_step,
        keep_effects=keep_effects,
        run_again=sorted(run_again),
    )
    return decision(flow, message, about=HaltMode.Name(mode), now=now)


def escalated(flow: Flow, matter: Matter, now: datetime) -> Entry:
    """Escalates a matter to a person."""
    escalation_id = matter.id(flow)
    message = Escalated(
        escalation_id=escalation_id,
        cause=matter.cause,
        subject_id=matter.subject,
        step=matter.step,
        reason=matter.reason,
        choices=matter.choices,
    )
    return decision(flow, message, about=escalation_id, now=now, step=matter.step)


def smaller(flow: Flow, entry: Entry, error: HandrailError, now: datetime) -> Entry | None:
    """Returns a replacement for an entry that the broker rejects as too large, or None if there is no smaller one.

    A command repeats data that is in the flow, so it is sent without: its receiver reads the data there. Any other
    entry, such as a release, can't be shortened: the flow is held and escalated to a person.
    """
    if entry.address.kind in COMMANDS and entry.event.data.value:
        event = Event()
        event.CopyFrom(entry.event)
        event.data.ClearField("value")
        return Entry(entry.address, event)
    if flow.halt is None:
        return halted(flow, HaltMode.HALT_MODE_HOLD, halts.TOO_LARGE + error.text, now)
    return None


def closed(flow: Flow, status: FlowStatus.ValueType, reason: str, now: datetime) -> Entry:
    """Closes the flow by decision."""
    return decision(flow, FlowClosed(status=status, reason=reason), about="", now=now)


def _command(flow: Flow, event_id: str, about: Recorded, now: datetime) -> Event:
    event = _event(flow, event_id, about.event.data, now)
    event.causation_id = about.event_id
    return event


def _event(flow: Flow, event_id: str, data: Any, now: datetime) -> Event:
    return Event(
        event_id=event_id,
        source=COORDINATOR,
        flow_type=flow.flow_type,
        flow_id=flow.flow_id,
        template_version=flow.template.version,
        time=timestamp(now),
        data=data,
        based_on_sequence=flow.last_sequence,
    )


def _address(flow: Flow, kind: Kind, agent: str, event_id: str, message_type: str) -> Address:
    return Address(flow.flow_type, flow.flow_id, kind, agent, event_id, message_type)
