"""States as pages show them: a glyph, a word and a tone, which never appear without each other. Pure."""

from __future__ import annotations

from typing import NamedTuple

from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.event_pb2 import Kind


class State(NamedTuple):
    """`tone` is a class of the stylesheet: run, wait, bad, undo, ok or muted."""

    glyph: str
    word: str
    tone: str


UNKNOWN = State("?", "Unknown", "muted")
"""A state that a newer coordinator knows."""

_FLOWS = {
    FlowStatus.FLOW_STATUS_RUNNING: State("▸", "Running", "run"),
    FlowStatus.FLOW_STATUS_WAITING_APPROVAL: State("◔", "Waiting for approval", "wait"),
    FlowStatus.FLOW_STATUS_ESCALATED: State("!", "Needs a person", "bad"),
    FlowStatus.FLOW_STATUS_COMPENSATING: State("↶", "Being undone", "undo"),
    FlowStatus.FLOW_STATUS_COMPLETED: State("✓", "Completed", "muted"),
    FlowStatus.FLOW_STATUS_COMPENSATED: State("↶", "Undone", "muted"),
    FlowStatus.FLOW_STATUS_CANCELLED: State("⊘", "Cancelled", "muted"),
    FlowStatus.FLOW_STATUS_FAILED: State("✕", "Failed", "bad"),
}

FINAL = frozenset(
    {
        FlowStatus.FLOW_STATUS_COMPLETED,
        FlowStatus.FLOW_STATUS_COMPENSATED,
        FlowStatus.FLOW_STATUS_CANCELLED,
        FlowStatus.FLOW_STATUS_FAILED,
    }
)
"""The flow is over."""

_RUNS = {
    pb.STEP_RUN_STATUS_OWED: State("▸", "at work", "run"),
    pb.STEP_RUN_STATUS_BACKOFF: State("↻", "will be retried", "wait"),
    pb.STEP_RUN_STATUS_DONE: State("█", "ran", "muted"),
    pb.STEP_RUN_STATUS_FAILED: State("✕", "failed", "bad"),
    pb.STEP_RUN_STATUS_NOT_STARTED: State("○", "not started", "muted"),
    pb.STEP_RUN_STATUS_UNDONE: State("↶", "undone", "undo"),
    pb.STEP_RUN_STATUS_SUPERSEDED: State("○", "superseded", "muted"),
    pb.STEP_RUN_STATUS_ABANDONED: State("○", "abandoned", "muted"),
}

_APPROVALS = {
    pb.APPROVAL_STATUS_PENDING: State("◔", "waits for votes", "wait"),
    pb.APPROVAL_STATUS_APPROVED: State("✓", "approved", "ok"),
    pb.APPROVAL_STATUS_REJECTED: State("✕", "rejected", "bad"),
    pb.APPROVAL_STATUS_EXPIRED: State("!", "expired", "bad"),
    pb.APPROVAL_STATUS_WITHDRAWN: State("○", "withdrawn", "muted"),
}


def of_flow(status: FlowStatus.ValueType) -> State:
    """The state of a flow."""
    return _FLOWS.get(status, UNKNOWN)


def of_run(status: pb.StepRunStatus.ValueType) -> State:
    """The state of a step run."""
    return _RUNS.get(status, UNKNOWN)


def of_approval(status: pb.ApprovalStatus.ValueType) -> State:
    """The state of an approval."""
    return _APPROVALS.get(status, UNKNOWN)


def of_kind(kind: Kind.ValueType) -> str:
    """What a message is, in a word: `event`, `proposal`, `decision`."""
    return Kind.Name(kind).removeprefix("KIND_").lower() if kind in Kind.values() else "unknown"


def short_type(name: str) -> str:
    """A message type without its package: `RefundPaid`."""
    return name.rpartition(".")[2]


def choice(name: str) -> str:
    """A choice as a word: `mark undone` for CHOICE_MARK_UNDONE."""
    return name.removeprefix("CHOICE_").replace("_", " ").lower()
