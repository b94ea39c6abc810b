"""What a story shows: messages, and where the flow stands, in words that need no Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from handrail.coordinator.decide.timers import timers
from handrail.mesh.flow import Effect, EffectState, Flow, ProposalState, RunState
from handrail.mesh.fold import is_final, status
from handrail.mesh.template.persons import ActState, has_expired, spelled
from handrail.mesh.wire.envelope import Recorded, from_timestamp, type_of
from handrail.mesh.wire.subjects import Kind
from handrail.v1 import decision_pb2 as pb
from handrail.v1.event_pb2 import Event
from handrail.v1.failure_pb2 import StepFailed
from tests.support.simulation import BEGINNING


def line(flow: Flow, recorded: Recorded) -> str:
    """One message: its place, the time since the flow began, who, and what; and why it does not count."""
    void = flow.void.get(recorded.sequence)
    suffix = f"  ** void: {_in_time(void.text)}" if void else ""
    return f"{recorded.sequence:>3} {clock(recorded.time):>7}  {_what(flow, recorded)}{suffix}"


def standing(flow: Flow) -> Iterator[str]:
    """The status, and what is owed by whom by when."""
    yield f"= {pb.FlowStatus.Name(status(flow)).removeprefix('FLOW_STATUS_')}{_why(flow)}"
    if flow.first is None or is_final(flow):
        return
    for run in flow.awaited_runs():
        if run.state is RunState.OWED:
            yield f"    {run.step.agent} owes {run.step.name} by {clock(run.deadline)}"
        elif run.state is RunState.BACKOFF and run.retry_at is not None:
            yield f"    {run.step.name} is tried again at {clock(run.retry_at)}"
    for effect in flow.undo_targets():
        yield from _undo(effect)
    for proposal in flow.proposals.values():
        if proposal.state is ProposalState.PENDING:
            until = f" by {clock(proposal.next_expiry)}" if proposal.next_expiry else ""
            missing = ", ".join(
                f"{ask.gate.quorum - len(ask.voters)} of {', '.join(sorted(ask.gate.roles))}"
                for ask in proposal.asks
                if not ask.passed
            )
            yield f"    {missing} must agree to {short(proposal.recorded.type)}{until}"
    for act in flow.acts.values():
        if act.state is ActState.PENDING and flow.last_time is not None and not has_expired(act, flow.last_time):
            yield f"    another person than {act.by} must confirm {spelled(act.acts)} by {clock(act.expires)}"
    for escalation in flow.escalations.values():
        choices = ", ".join(pb.Choice.Name(choice).removeprefix("CHOICE_") for choice in escalation.choices)
        cause = pb.EscalationCause.Name(escalation.cause).removeprefix("ESCALATION_CAUSE_")
        yield f"    an operator owes an answer to {cause}: {choices}"


def clock(time: datetime) -> str:
    """A time since the flow began, as 0:00:30 or 1d 0:00:00."""
    since = time - BEGINNING
    return (
        f"{since.days}d {str(since - since.__class__(days=since.days)).partition('.')[0]}"
        if since.days
        else (str(since).partition(".")[0])
    )


def short(full_name: str) -> str:
    """A message's name without its package."""
    return full_name.rpartition(".")[2]


def _undo(effect: Effect) -> Iterator[str]:
    what = f"undo of {short(effect.recorded.type)}"
    if effect.deadline is not None:
        yield f"    {effect.step.agent} owes the {what} by {clock(effect.deadline)}"
    elif effect.retry_at is not None:
        yield f"    the {what} is tried again at {clock(effect.retry_at)}"
    elif effect.state is EffectState.DONE:
        yield f"    the {what} is to come"


def _why(flow: Flow) -> str:
    return f" ({flow.closed_reason})" if flow.closed else ""


def _what(flow: Flow, recorded: Recorded) -> str:
    event, name = recorded.event, short(recorded.type)
    about = event.step + (f" (run {event.run})" if event.run else "")
    match recorded.kind:
        case Kind.EVENT if not event.step:
            return f"{event.requester or recorded.agent} begins: {name}"
        case Kind.EVENT:
            total = f" ({event.output_index + 1} of {event.output_total})" if event.output_total > 1 else ""
            return f"{recorded.agent}: {name}{total}"
        case Kind.PROPOSAL:
            return f"{recorded.agent} proposes {name}"
        case Kind.RELEASED:
            return f"coordinator releases {name}"
        case Kind.FAILURE if name == "StepFailed":
            failed = StepFailed.FromString(event.data.value)
            what = f"undo by {about}" if failed.undo_of else about
            final = "" if failed.retryable else ", for good"
            unknown = ", and may have done it" if failed.outcome_unknown else ""
            return f"{recorded.agent}: attempt {event.attempt} of {what} failed{final}{unknown}: {failed.text}"
        case Kind.FAILURE:
            return f"{recorded.agent} did not start {about}"
        case Kind.PROGRESS:
            return f"{recorded.agent} is still at {about}"
        case Kind.UNDONE:
            return f"{recorded.agent} undid {_type_of(flow, event.root)}: {name}"
        case Kind.RETRY:
            return f"coordinator asks {recorded.agent} to do {about} again, attempt {event.attempt}"
        case Kind.UNDO:
            return f"coordinator asks {recorded.agent} to undo {name}, attempt {event.attempt}"
        case Kind.DECISION:
            return _DECISIONS[name](flow, recorded) + _confirmed(recorded)
        case _:
            return f"{recorded.agent} {recorded.kind.value}: {name}"


def _confirmed(recorded: Recorded) -> str:
    if not recorded.event.HasField("confirmation"):
        return ""
    said = recorded.event.confirmation
    if said.break_glass:
        return f"; {said.by} breaks the glass: {said.reason or 'says not why'}"
    return f"; {said.by} confirms"


def _act_requested(flow: Flow, recorded: Recorded) -> str:
    asked = pb.ActRequested.FromString(recorded.event.data.value)
    inner = Recorded(
        recorded.address._replace(message_type=type_of(asked.act)), Event(data=asked.act), 0, recorded.time
    )
    return f"{asked.by} asks a second person: {_DECISIONS[short(type_of(asked.act))](flow, inner)}"


def _act_withdrawn(flow: Flow, recorded: Recorded) -> str:
    return f"{pb.ActWithdrawn.FromString(recorded.event.data.value).by} withdraws it"


def _type_of(flow: Flow, event_id: str) -> str:
    effect = flow.effects.get(event_id)
    return short(effect.recorded.type) if effect else "what is not there"


def _proposal(flow: Flow, event_id: str) -> str:
    proposal = flow.proposals.get(event_id)
    return short(proposal.recorded.type) if proposal else "nothing"


def _requested(flow: Flow, recorded: Recorded) -> str:
    request = pb.ApprovalRequested.FromString(recorded.event.data.value)
    asked = " and ".join(
        f"{gate.quorum} of {', '.join(gate.roles)}"
        + (f" but not {gate.requester}" if gate.not_the_requester else "")
        + f" ({_in_time(gate.reason)})"
        for gate in request.gates
    )
    return f"coordinator asks {asked} to agree to {_proposal(flow, request.proposal_id)}"


def _given(flow: Flow, recorded: Recorded) -> str:
    vote = pb.ApprovalGiven.FromString(recorded.event.data.value)
    return f"{_voter(vote)} agrees to {_proposal(flow, vote.proposal_id)}{_comment(vote.comment)}"


def _refused(flow: Flow, recorded: Recorded) -> str:
    vote = pb.ApprovalRefused.FromString(recorded.event.data.value)
    return f"{_voter(vote)} refuses {_proposal(flow, vote.proposal_id)}{_comment(vote.comment)}"


def _voter(vote: pb.ApprovalGiven | pb.ApprovalRefused) -> str:
    return f"{vote.voter or 'coordinator'}{f' on behalf of {vote.on_behalf_of}' if vote.on_behalf_of else ''}"


def _reassigned(flow: Flow, recorded: Recorded) -> str:
    message = pb.ApprovalReassigned.FromString(recorded.event.data.value)
    return f"{message.by} lets {', '.join(message.roles)} vote on {_proposal(flow, message.proposal_id)}"


def _comment(text: str) -> str:
    return f": {text}" if text else ""


def _timed_out(flow: Flow, recorded: Recorded) -> str:
    message = pb.StepTimedOut.FromString(recorded.event.data.value)
    what = f"the undo of {_type_of(flow, message.undo_of)}" if message.undo_of else message.step
    return f"coordinator: attempt {message.attempt} of {what} gave no outcome by {_until(message)}"


def _credited(flow: Flow, recorded: Recorded) -> str:
    message = pb.TimeCredited.FromString(recorded.event.data.value)
    away = " and ".join(
        f"{clock(from_timestamp(each.start_time))} to {clock(from_timestamp(each.end_time))}"
        for each in message.absences
    )
    name = _due(flow, message.what)
    return f"coordinator was away from {away}: {name} has until {clock(from_timestamp(message.until))}"


def _queued(flow: Flow, recorded: Recorded) -> str:
    message = pb.StepQueued.FromString(recorded.event.data.value)
    what, until = _due(flow, message.what), clock(from_timestamp(message.until))
    if message.handed_out:
        return f"coordinator: {what} has left the queue, and has until {until}"
    return f"coordinator: {what} is not begun, and waits until {until}"


def _due(flow: Flow, what: pb.Deadline) -> str:
    return {
        pb.DeadlineKind.DEADLINE_KIND_STEP: what.step,
        pb.DeadlineKind.DEADLINE_KIND_UNDO: f"the undo of {_type_of(flow, what.subject_id)}",
        pb.DeadlineKind.DEADLINE_KIND_APPROVAL: f"the answer to gate {what.gate}",
        pb.DeadlineKind.DEADLINE_KIND_FLOW: "the flow",
    }[what.kind]


def _until(message: pb.StepTimedOut) -> str:
    return clock(from_timestamp(message.deadline))


def _halted(flow: Flow, recorded: Recorded) -> str:
    message = pb.FlowHalted.FromString(recorded.event.data.value)
    mode = pb.HaltMode.Name(message.mode).removeprefix("HALT_MODE_")
    to_step = f" back to {message.to_step}" if message.to_step else ""
    keep = ", keeping its effects" if message.keep_effects else ""
    return f"{message.by or 'coordinator'} halts the flow: {mode}{to_step}{keep}: {_in_time(message.reason)}"


def _resumed(flow: Flow, recorded: Recorded) -> str:
    return f"coordinator resumes the flow for {pb.FlowResumed.FromString(recorded.event.data.value).by}"


def _compensating(flow: Flow, recorded: Recorded) -> str:
    message = pb.CompensationStarted.FromString(recorded.event.data.value)
    order = "at once" if message.parallel else "one after the other"
    return f"coordinator will undo {', '.join(_type_of(flow, event_id) for event_id in message.event_ids)}, {order}"


def _tripped(flow: Flow, recorded: Recorded) -> str:
    message = pb.RuleTripped.FromString(recorded.event.data.value)
    then = pb.RuleAction.Name(message.then).removeprefix("RULE_ACTION_")
    return f"coordinator: rule {message.rule} tripped at {message.sequence}, {then}: {_in_time(message.detail)}"


def _escalated(flow: Flow, recorded: Recorded) -> str:
    message = pb.Escalated.FromString(recorded.event.data.value)
    cause = pb.EscalationCause.Name(message.cause).removeprefix("ESCALATION_CAUSE_")
    return f"coordinator asks an operator, {cause}: {_in_time(message.reason)}"


def _resolved(flow: Flow, recorded: Recorded) -> str:
    message = pb.Resolved.FromString(recorded.event.data.value)
    return f"{message.by} answers {pb.Choice.Name(message.choice).removeprefix('CHOICE_')}"


def _migrated(flow: Flow, recorded: Recorded) -> str:
    message = pb.FlowMigrated.FromString(recorded.event.data.value)
    return f"{message.by} moves the flow from version {message.from_version} to {message.to_version}"


def _reopened(flow: Flow, recorded: Recorded) -> str:
    message = pb.StepReopened.FromString(recorded.event.data.value)
    return f"{message.by} has {message.step} done again, run {message.run}"


def _closed(flow: Flow, recorded: Recorded) -> str:
    message = pb.FlowClosed.FromString(recorded.event.data.value)
    return f"coordinator closes the flow: {pb.FlowStatus.Name(message.status).removeprefix('FLOW_STATUS_')}"


def _in_time(text: str) -> str:
    """Texts name fields and ids as programs do; a story does without ids."""
    words = text.split()
    return " ".join("…" if len(word) == 32 and set(word) <= set("0123456789abcdef") else word for word in words)


_DECISIONS: dict[str, Callable[[Flow, Recorded], str]] = {
    "ApprovalRequested": _requested,
    "ApprovalGiven": _given,
    "ApprovalRefused": _refused,
    "ApprovalReassigned": _reassigned,
    "StepTimedOut": _timed_out,
    "StepQueued": _queued,
    "TimeCredited": _credited,
    "FlowHalted": _halted,
    "FlowResumed": _resumed,
    "CompensationStarted": _compensating,
    "RuleTripped": _tripped,
    "Escalated": _escalated,
    "Resolved": _resolved,
    "StepReopened": _reopened,
    "FlowMigrated": _migrated,
    "FlowClosed": _closed,
    "ActRequested": _act_requested,
    "ActWithdrawn": _act_withdrawn,
}

__all__ = ["clock", "line", "short", "standing", "timers"]
