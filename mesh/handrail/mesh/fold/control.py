"""Decisions about the flow as a whole: halts, escalations and their answers, rules, the end."""

from __future__ import annotations

from dataclasses import replace

from handrail.mesh.envelope import Recorded
from handrail.mesh.flow import (
    Divergence,
    Effect,
    EffectState,
    Escalation,
    Flow,
    Halt,
    ProposalState,
    RunState,
    StepRun,
    Void,
    Wish,
)
from handrail.mesh.fold import attempts, compensation, status
from handrail.v1.decision_pb2 import (
    Choice,
    Escalated,
    EscalationCause,
    FlowClosed,
    FlowHalted,
    FlowStatus,
    HaltMode,
    Resolved,
    RuleTripped,
)
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import Divergence as DivergenceMessage

_WITHDRAWN_BY_HALT = frozenset(
    {ProposalState.EVALUATED, ProposalState.PENDING, ProposalState.APPROVED, ProposalState.EXPIRED}
)

_WISHES = frozenset(
    {
        Choice.CHOICE_RESUME,
        Choice.CHOICE_COMPENSATE,
        Choice.CHOICE_CANCEL,
        Choice.CHOICE_FAIL,
        Choice.CHOICE_REJECT,
    }
)


def apply_divergence(flow: Flow, recorded: Recorded) -> Void | None:
    """An agent reports what the stream can't show."""
    if recorded.type != DivergenceMessage.DESCRIPTOR.full_name:
        return Void(f"{recorded.type} is no divergence", ErrorReason.ERROR_REASON_WRONG_AGENT)
    message = DivergenceMessage.FromString(recorded.event.data.value)
    text = f"{message.refused_type} was not stored as {message.event_id}: it holds {message.stored_type}"
    flow.divergences = (
        *flow.divergences,
        Divergence(recorded.sequence, recorded.agent, message.refused_type, text),
    )
    return None


def may_halt(flow: Flow, mode: HaltMode.ValueType) -> bool:
    """Whether a halt of this mode would change anything: a hold can be followed by any other, an end by an undo."""
    undo = (HaltMode.HALT_MODE_COMPENSATE, HaltMode.HALT_MODE_CANCEL)
    if flow.closed:
        # What is undone, or cancelled with its effects undone, has nothing left to undo.
        return mode == HaltMode.HALT_MODE_COMPENSATE and not flow.is_undoing
    if flow.halt is None:
        return mode == HaltMode.HALT_MODE_COMPENSATE or not status.is_complete(flow)
    if flow.halt.mode == HaltMode.HALT_MODE_HOLD or flow.halt.to_step:
        return mode != HaltMode.HALT_MODE_HOLD
    return mode in undo and flow.halt.mode not in undo


def apply_halted(flow: Flow, recorded: Recorded) -> Void | None:
    """No forward step starts any more."""
    halted = FlowHalted.FromString(recorded.event.data.value)
    if not may_halt(flow, halted.mode):
        return Void("the flow is halted already, or over", ErrorReason.ERROR_REASON_WRONG_STATUS)
    flow.halt = Halt(
        halted.mode,
        halted.reason,
        halted.by,
        halted.to_step,
        halted.keep_effects,
        halted.request_id,
        recorded,
    )
    flow.closed = FlowStatus.FLOW_STATUS_UNSPECIFIED
    flow.closed_reason = ""
    flow.compensation_started = False
    flow.wish = None
    if halted.mode != HaltMode.HALT_MODE_HOLD:
        flow.escalations.clear()
        for trip in flow.trips.values():
            flow.trips[trip.rule] = replace(trip, settled=True)
        for event_id, proposal in flow.proposals.items():
            if proposal.state in _WITHDRAWN_BY_HALT:
                flow.proposals[event_id] = replace(proposal, state=ProposalState.WITHDRAWN)
    return None


def apply_resumed(flow: Flow, recorded: Recorded) -> Void | None:
    """A held flow goes on: what was not started, and what was undone on the way back, is due at once."""
    halt = flow.halt
    if halt is None or not (halt.mode == HaltMode.HALT_MODE_HOLD or halt.to_step) or flow.closed:
        return Void("the flow is not held", ErrorReason.ERROR_REASON_WRONG_STATUS)
    if flow.undo_targets():
        return Void("its effects are still being undone", ErrorReason.ERROR_REASON_WRONG_STATUS)
    if halt.to_step:
        _go_back(flow, halt.to_step, recorded)
    flow.halt = None
    flow.wish = None
    flow.compensation_started = False
    for run in list(flow.runs.values()):
        if run.state is RunState.NOT_STARTED:
            attempts.reopen(flow, run, recorded.time)
    for event_id, proposal in flow.proposals.items():
        if proposal.state is ProposalState.WITHDRAWN and event_id in _live_outputs(flow):
            flow.proposals[event_id] = replace(proposal, state=ProposalState.EVALUATED, ballots=(), requested_at=None)
    return None


def apply_rule_tripped(flow: Flow, recorded: Recorded) -> Void | None:
    """A tripped rule was recorded; once."""
    tripped = RuleTripped.FromString(recorded.event.data.value)
    trip = flow.trips.get(tripped.rule)
    if trip is None or trip.recorded:
        return Void("the rule has not tripped, or is recorded")
    flow.trips[tripped.rule] = replace(trip, recorded=True)
    return None


def apply_escalated(flow: Flow, recorded: Recorded) -> Void | None:
    """A matter waits for a person."""
    escalated = Escalated.FromString(recorded.event.data.value)
    if escalated.escalation_id in flow.escalated or flow.closed:
        return Void("the matter is with a person already, or the flow is over")
    if not _still_holds(flow, escalated):
        return Void("the matter has settled itself")
    flow.escalated |= {escalated.escalation_id}
    flow.escalations[escalated.escalation_id] = Escalation(
        escalated.escalation_id,
        escalated.cause,
        escalated.subject_id,
        escalated.step,
        escalated.reason,
        tuple(escalated.choices),
        recorded.time,
    )
    if escalated.cause == EscalationCause.ESCALATION_CAUSE_RULE:
        flow.trips[escalated.subject_id] = replace(flow.trips[escalated.subject_id], settled=True)
    if escalated.cause == EscalationCause.ESCALATION_CAUSE_APPROVAL_EXPIRED:
        event_id = escalated.subject_id.partition(":")[0]
        flow.proposals[event_id] = replace(flow.proposals[event_id], state=ProposalState.EXPIRED)
    return None


def apply_resolved(flow: Flow, recorded: Recorded) -> Void | None:
    """A person answered an escalation."""
    resolved = Resolved.FromString(recorded.event.data.value)
    escalation = flow.escalations.get(resolved.escalation_id)
    if escalation is None:
        return Void("no such matter is open", ErrorReason.ERROR_REASON_ESCALATION_NOT_FOUND)
    if resolved.choice not in escalation.choices:
        return Void("the choice was not offered", ErrorReason.ERROR_REASON_CHOICE_NOT_OFFERED)
    del flow.escalations[resolved.escalation_id]
    if resolved.choice in _WISHES:
        if resolved.choice == Choice.CHOICE_RESUME and flow.halt is None:
            return None
        about = escalation.subject_id.partition(":")[0]
        flow.wish = Wish(resolved.choice, resolved.by, resolved.reason, about)
        return None
    run, effect = _run_of(flow, escalation), flow.effects.get(escalation.subject_id.partition(":")[0])
    match resolved.choice:
        case Choice.CHOICE_RETRY if effect is not None:
            compensation.retry_undo(flow, effect, recorded)
        case Choice.CHOICE_RETRY if run is not None:
            attempts.reopen(flow, run, recorded.time)
        case Choice.CHOICE_MARK_UNDONE if effect is not None:
            compensation.mark(flow, effect, EffectState.UNDONE_BY_HAND)
        case Choice.CHOICE_ACCEPT if effect is not None:
            compensation.mark(flow, effect, EffectState.ACCEPTED)
        case Choice.CHOICE_ACCEPT if run is not None:
            flow.runs[run.key] = replace(run, outcome_unknown=False, state=RunState.FAILED)
        case Choice.CHOICE_EXTEND:
            event_id = escalation.subject_id.partition(":")[0]
            flow.proposals[event_id] = replace(
                flow.proposals[event_id], state=ProposalState.PENDING, requested_at=recorded.time
            )
    return None


def apply_closed(flow: Flow, recorded: Recorded) -> Void | None:
    """The flow ends by decision, if by the fold's own rules nothing is left to do."""
    closed = FlowClosed.FromString(recorded.event.data.value)
    if flow.closed or status.settled(flow) != closed.status:
        return Void("the flow is over already, or something is left to do")
    flow.closed = closed.status
    flow.closed_reason = closed.reason
    return None


def run_subject(run: StepRun) -> str:
    """How an escalation names an attempt of a step run."""
    return f"{run.root}:{run.run}:{run.attempt}"


def effect_subject(effect: Effect) -> str:
    """How an escalation names an attempt to undo an effect."""
    return f"{effect.recorded.event_id}:{effect.attempt}"


def _still_holds(flow: Flow, escalated: Escalated) -> bool:
    about = escalated.subject_id.partition(":")[0]
    match escalated.cause:
        case EscalationCause.ESCALATION_CAUSE_STEP_FAILED | EscalationCause.ESCALATION_CAUSE_OUTCOME_UNKNOWN:
            run = flow.runs.get((escalated.step, about))
            return run is not None and run.state is RunState.FAILED and run_subject(run) == escalated.subject_id
        case EscalationCause.ESCALATION_CAUSE_UNDO_FAILED:
            effect = flow.effects.get(about)
            return effect is not None and effect.state is EffectState.UNDO_FAILED
        case EscalationCause.ESCALATION_CAUSE_APPROVAL_EXPIRED:
            proposal = flow.proposals.get(about)
            return proposal is not None and proposal.state is ProposalState.PENDING
        case EscalationCause.ESCALATION_CAUSE_NO_APPROVER:
            proposal = flow.proposals.get(about)
            return proposal is not None and proposal.state is ProposalState.EVALUATED
        case EscalationCause.ESCALATION_CAUSE_DEADLINE | EscalationCause.ESCALATION_CAUSE_STRANDED:
            return not status.is_complete(flow)
        case EscalationCause.ESCALATION_CAUSE_RULE:
            trip = flow.trips.get(about)
            return trip is not None and not trip.settled
        case _:
            return True


def _run_of(flow: Flow, escalation: Escalation) -> StepRun | None:
    return flow.runs.get((escalation.step, escalation.subject_id.partition(":")[0]))


def _live_outputs(flow: Flow) -> set[str]:
    return {event_id for run in flow.runs.values() if run.state is RunState.DONE for event_id in run.outputs.values()}


def _go_back(flow: Flow, step: str, recorded: Recorded) -> None:
    """Take back what came after a step, so that the steps behind it are done again in a new run."""
    floor = flow.sequence_of_step(step)
    for event_id, fact in list(flow.facts.items()):
        if fact.sequence > floor:
            del flow.facts[event_id]
            kept = tuple(r for r in flow.facts_by_type[fact.type] if r.event_id != event_id)
            flow.facts_by_type[fact.type] = kept
    for event_id, proposal in list(flow.proposals.items()):
        if proposal.recorded.sequence > floor:
            flow.proposals[event_id] = replace(proposal, state=ProposalState.WITHDRAWN)
    for run in list(flow.runs.values()):
        if run.trigger.sequence > floor:
            flow.runs[run.key] = replace(run, state=RunState.SUPERSEDED)
            flow.joined -= {run.step.name}
        elif run.state is not RunState.DONE or not _outcomes_kept(flow, run, floor):
            attempts.reopen(flow, run, recorded.time)


def _outcomes_kept(flow: Flow, run: StepRun, floor: int) -> bool:
    return all(
        event_id in flow.facts or (event_id in flow.proposals and flow.proposals[event_id].recorded.sequence <= floor)
        for event_id in run.outputs.values()
    )
