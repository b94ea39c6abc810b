"""The API's enum values as words for people, and back."""

from __future__ import annotations

from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.decision_pb2 import Choice, EscalationCause, FlowStatus, HaltMode
from handrail.v1.event_pb2 import Kind
from handrail.v1.failure_pb2 import DivergenceKind


def word(name: str, prefix: str) -> str:
    """The name of an enum value without its prefix; empty for the one that says nothing."""
    short = name.removeprefix(prefix)
    return "" if short == "UNSPECIFIED" else short


def status(value: FlowStatus.ValueType) -> str:
    """RUNNING, WAITING_APPROVAL, …"""
    return word(FlowStatus.Name(value), "FLOW_STATUS_")


def status_of(flow: pb.Flow) -> str:
    """The status of a flow."""
    return status(flow.status)


def kind(value: Kind.ValueType) -> str:
    """event, proposal, decision, …"""
    return word(Kind.Name(value), "KIND_").lower()


def run_status(run: pb.StepRun) -> str:
    """OWED, DONE, …"""
    return word(pb.StepRunStatus.Name(run.status), "STEP_RUN_STATUS_")


def effect_status(effect: pb.FlowEffect) -> str:
    """DONE, UNDONE, …"""
    return word(pb.EffectStatus.Name(effect.status), "EFFECT_STATUS_")


def approval_status(approval: pb.Approval) -> str:
    """PENDING, APPROVED, …"""
    return word(pb.ApprovalStatus.Name(approval.status), "APPROVAL_STATUS_")


def cause(escalation: pb.OpenEscalation) -> str:
    """STEP_FAILED, RULE, …"""
    return word(EscalationCause.Name(escalation.cause), "ESCALATION_CAUSE_")


def divergence(value: DivergenceKind.ValueType) -> str:
    """NOT_TRIGGERED, WRONG_AGENT, …"""
    return word(DivergenceKind.Name(value), "DIVERGENCE_KIND_")


def halt_mode(value: HaltMode.ValueType) -> str:
    """HOLD, COMPENSATE, …"""
    return word(HaltMode.Name(value), "HALT_MODE_")


def choice_word(value: Choice.ValueType) -> str:
    """A choice as the command line has it: mark-undone."""
    return word(Choice.Name(value), "CHOICE_").lower().replace("_", "-")


def choices() -> tuple[str, ...]:
    """Every choice as the command line has it."""
    return tuple(choice_word(value) for value in Choice.values() if value)


def spelled(text: str) -> str:
    """A choice as the command line has it, from its name in the API too: MARK_UNDONE."""
    return text.lower().replace("_", "-")


def choice_of(text: str) -> Choice.ValueType:
    """The choice that a word of the command line names."""
    return Choice.Value(f"CHOICE_{text.upper().replace('-', '_')}")


def is_final(value: FlowStatus.ValueType) -> bool:
    """Whether a flow of this status is over."""
    return value in (
        FlowStatus.FLOW_STATUS_COMPLETED,
        FlowStatus.FLOW_STATUS_COMPENSATED,
        FlowStatus.FLOW_STATUS_CANCELLED,
        FlowStatus.FLOW_STATUS_FAILED,
    )
