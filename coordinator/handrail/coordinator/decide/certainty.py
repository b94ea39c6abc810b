"""How well a flow must be known before a message is appended to it. Pure.

A replica folds its own appends without reading them. What it then lacks is the broker's time of each; on a replicated
stream it also lacks an event that the broker stored just before, because the broker compares expected sequences before
it replicates a message.
"""

from __future__ import annotations

from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.subjects import Kind
from handrail.v1.decision_pb2 import (
    ApprovalRequested,
    CompensationStarted,
    FlowClosed,
    FlowHalted,
    FlowResumed,
    RuleTripped,
)

_OF_STATE = frozenset(
    message.DESCRIPTOR.full_name
    for message in (ApprovalRequested, CompensationStarted, FlowClosed, FlowHalted, FlowResumed, RuleTripped)
)


def depends_on_time(entry: Entry) -> bool:
    """Tells whether the times of earlier messages decide that this message is due: time-outs, retries, expiries."""
    match entry.address.kind:
        case Kind.RELEASED:
            return False
        case Kind.UNDO:
            return entry.event.attempt > 1
        case _:
            return entry.address.message_type not in _OF_STATE


def bears_a_gap(entry: Entry) -> bool:
    """Tells whether it may be appended although an event may have come in between that it does not take into account.

    A request for approval asks a person, and a release is void unless the fold finds the approvals. All others halt,
    plan, undo, time out, escalate or close.
    """
    return entry.address.kind is Kind.RELEASED or entry.address.message_type == ApprovalRequested.DESCRIPTOR.full_name
