"""The API's enum values as words for people, and the reverse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.act_pb2 import Act, ActStatus, PendingAct
from handrail.v1.decision_pb2 import Choice, EscalationCause, FlowStatus, HaltMode
from handrail.v1.event_pb2 import Kind
from handrail.v1.failure_pb2 import DivergenceKind

if TYPE_CHECKING:
    from handrail.v1.delegation_service_pb2 import ListedDelegation


def word(name: str, prefix: str) -> str:
    """Returns an enum value's name without its prefix; empty for UNSPECIFIED."""
    short = name.removeprefix(prefix)
    return "" if short == "UNSPECIFIED" else short


def status(value: FlowStatus.ValueType) -> str:
    """Returns RUNNING, WAITING_APPROVAL, …"""
    return word(FlowStatus.Name(value), "FLOW_STATUS_")


def status_of(flow: pb.Flow) -> str:
    """Returns the status of a flow."""
    return status(flow.status)


def kind(value: Kind.ValueType) -> str:
    """Returns event, proposal, decision, …"""
    return word(Kind.Name(value), "KIND_").lower()


def run_status(run: pb.StepRun) -> str:
    """Returns OWED, DONE, …"""
    return word(pb.StepRunStatus.Name(run.status), "STEP_RUN_STATUS_")


def effect_status(effect: pb.FlowEffect) -> str:
    """Returns DONE, UNDONE, …"""
    return word(pb.EffectStatus.Name(effect.status), "EFFECT_STATUS_")


def approval_status(approval: pb.Approval) -> str:
    """Returns PENDING, APPROVED, …"""
    return word(pb.ApprovalStatus.Name(approval.status), "APPROVAL_STATUS_")


def delegation_status(listed: ListedDelegation) -> str:
    """Returns ACTIVE, EXPIRED, …"""
    from handrail.v1.delegation_service_pb2 import DelegationStatus

    return word(DelegationStatus.Name(listed.status), "DELEGATION_STATUS_")


def act_status(act: PendingAct) -> str:
    """Returns PENDING, CONFIRMED, …"""
    return word(ActStatus.Name(act.status), "ACT_STATUS_")


def act_words(act: PendingAct) -> str:
    """Returns what an act is, as templates name it: CANCEL, RESOLVE."""
    return ", ".join(word(Act.Name(each), "ACT_") for each in act.acts)


def cause(escalation: pb.OpenEscalation) -> str:
    """Returns STEP_FAILED, RULE, …"""
    return word(EscalationCause.Name(escalation.cause), "ESCALATION_CAUSE_")


def divergence(value: DivergenceKind.ValueType) -> str:
    """Returns NOT_TRIGGERED, WRONG_AGENT, …"""
    return word(DivergenceKind.Name(value), "DIVERGENCE_KIND_")


def halt_mode(value: HaltMode.ValueType) -> str:
    """Returns HOLD, COMPENSATE, …"""
    return word(HaltMode.Name(value), "HALT_MODE_")


def choice_word(value: Choice.ValueType) -> str:
    """Returns a choice as the command line spells it: mark-undone."""
    return word(Choice.Name(value), "CHOICE_").lower().replace("_", "-")


def choices() -> tuple[str, ...]:
    """Returns every choice as the command line spells it."""
    return tuple(choice_word(value) for value in Choice.values() if value)


def spelled(text: str) -> str:
    """Returns a choice as the command line spells it; accepts its API name, too: MARK_UNDONE."""
    return text.lower().replace("_", "-")


def choice_of(text: str) -> Choice.ValueType:
    """Returns the choice that a command-line word names."""
    return Choice.Value(f"CHOICE_{text.upper().replace('-', '_')}")


def is_final(value: FlowStatus.ValueType) -> bool:
    """Tells whether a flow with this status has ended."""
    return value in (
        FlowStatus.FLOW_STATUS_COMPLETED,
        FlowStatus.FLOW_STATUS_COMPENSATED,
        FlowStatus.FLOW_STATUS_CANCELLED,
        FlowStatus.FLOW_STATUS_FAILED,
    )
