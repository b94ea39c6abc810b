"""Resolutions: the answers of people to matters."""

from __future__ import annotations

from handrail.mesh.flow import EffectState, Escalation, Flow, PendingResolution, Void
from handrail.mesh.flow.values import replace
from handrail.mesh.fold import attempts, compensation
from handrail.mesh.wire.envelope import Recorded
from handrail.v1.decision_pb2 import Choice, EscalationCause, Resolved
from handrail.v1.error_reason_pb2 import ErrorReason

_BY_COORDINATOR = frozenset(
    {
        Choice.CHOICE_RESUME,
        Choice.CHOICE_COMPENSATE,
        Choice.CHOICE_CANCEL,
        Choice.CHOICE_FAIL,
        Choice.CHOICE_REJECT,
    }
)
"""Choices that the coordinator carries out with a decision of its own."""

_OF_HOLD = frozenset(
    {
        EscalationCause.ESCALATION_CAUSE_RULE,
        EscalationCause.ESCALATION_CAUSE_FLOODED,
        EscalationCause.ESCALATION_CAUSE_DIVERGED,
        EscalationCause.ESCALATION_CAUSE_TOO_LARGE,
    }
)
_OF_HALT = _OF_HOLD | {EscalationCause.ESCALATION_CAUSE_COMPENSATED_TO_STEP}


def apply_resolved(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies the answer of a person to an escalation."""
    resolved = Resolved.FromString(recorded.event.data.value)
    escalation = flow.escalations.get(resolved.escalation_id)
    if escalation is None:
        return Void("no such matter is open", ErrorReason.ERROR_REASON_ESCALATION_NOT_FOUND)
    if resolved.choice not in escalation.choices:
        return Void("the choice was not offered", ErrorReason.ERROR_REASON_CHOICE_NOT_OFFERED)
    if not resolved.by:
        return Void("it does not name who answered", ErrorReason.ERROR_REASON_MISSING_ROLE)
    if resolved.choice in _BY_COORDINATOR and flow.pending_resolution is not None:
        return Void("another answer is being carried out; try again", ErrorReason.ERROR_REASON_WRONG_STATUS)
    del flow.escalations[resolved.escalation_id]
    if resolved.choice not in _BY_COORDINATOR:
        _carry_out(flow, escalation, resolved.choice, recorded)
    elif resolved.choice != Choice.CHOICE_RESUME or _lifts_halt(flow, escalation):
        flow.pending_resolution = PendingResolution(resolved.choice, resolved.by, resolved.reason, _about(escalation))
    return None


def _lifts_halt(flow: Flow, escalation: Escalation) -> bool:
    """Whether this was the last matter that halts the flow: each needs an answer of its own."""
    return escalation.cause in _OF_HALT and all(other.cause not in _OF_HOLD for other in flow.escalations.values())


def _carry_out(flow: Flow, escalation: Escalation, choice: Choice.ValueType, recorded: Recorded) -> None:
    about = _about(escalation)
    match choice:
        case Choice.CHOICE_EXTEND:
            flow.proposals[about] = flow.proposals[about].asked_again(recorded.time)
        case Choice.CHOICE_MARK_UNDONE:
            compensation.mark(flow, flow.effects[about], EffectState.UNDONE_BY_HAND)
        case Choice.CHOICE_ACCEPT if escalation.cause == EscalationCause.ESCALATION_CAUSE_UNDO_FAILED:
            compensation.mark(flow, flow.effects[about], EffectState.ACCEPTED)
        case Choice.CHOICE_ACCEPT:
            run = flow.runs[escalation.step, about]
            flow.runs[run.key] = replace(run, unknown=frozenset())
        case Choice.CHOICE_RETRY if escalation.cause == EscalationCause.ESCALATION_CAUSE_UNDO_FAILED:
            compensation.retry_undo(flow, flow.effects[about], recorded)
        case Choice.CHOICE_RETRY:
            attempts.reopen(flow, flow.runs[escalation.step, about], recorded.time)


def _about(escalation: Escalation) -> str:
    return escalation.subject_id.partition(":")[0]
