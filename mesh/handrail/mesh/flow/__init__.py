"""A flow as a value: the state that the fold computes from its messages. Pure: no clock, no I/O.

The fold alone changes a `Flow`, on a copy of its own; everything else reads it.
"""

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
