"""A flow as a value: the state that the fold computes from its messages. Pure: no clock, no I/O.

The fold alone changes a `Flow`, on a copy of its own; everything else reads it.
"""

from handrail.mesh.flow.enum_names import settle
from handrail.mesh.flow.flow import (
    MESSAGE_LIMIT,
    Ask,
    Ballot,
    Divergence,
    Effect,
    EffectState,
    Escalation,
    Flow,
    Halt,
    Migration,
    PendingResolution,
    Proposal,
    ProposalState,
    Requested,
    RuleTrip,
    RunState,
    StepRun,
    Verdict,
    Void,
)
from handrail.v1 import (
    act_pb2,
    decision_pb2,
    delegation_service_pb2,
    error_reason_pb2,
    failure_pb2,
    template_pb2,
)

__all__ = [
    "MESSAGE_LIMIT",
    "Ask",
    "Ballot",
    "Divergence",
    "Effect",
    "EffectState",
    "Escalation",
    "Flow",
    "Halt",
    "Migration",
    "PendingResolution",
    "Proposal",
    "ProposalState",
    "Requested",
    "RuleTrip",
    "RunState",
    "StepRun",
    "Verdict",
    "Void",
]

settle(act_pb2, decision_pb2, delegation_service_pb2, error_reason_pb2, failure_pb2, template_pb2)
