"""Decisions about proposals: releases, approval requests, and answers after an expiry. Pure."""

from __future__ import annotations

from datetime import datetime

from handrail.coordinator.decide import messages
from handrail.mesh.flow import Ask, Flow, PendingResolution, Proposal, ProposalState
from handrail.mesh.fold.approvals import may_be_released
from handrail.mesh.wire.envelope import Entry
from handrail.v1.decision_pb2 import ApprovalCause, ApprovalGiven, ApprovalRefused
from handrail.v1.template_pb2 import ExpiryAction


def proposals(flow: Flow, now: datetime) -> Entry | None:
    """Returns the next message about a proposal, or None."""
    return next((e for proposal in flow.proposals.values() if (e := _proposal(flow, proposal, now)) is not None), None)


def rejection(flow: Flow, resolution: PendingResolution, now: datetime) -> Entry:
    """Refuses a proposal because a person resolved it so."""
    proposal = flow.proposals[resolution.subject_id]
    cause = ApprovalCause.APPROVAL_CAUSE_RESOLUTION
    return _refusal(flow, proposal, cause, now, voter=resolution.by, why=resolution.reason)


def _proposal(flow: Flow, proposal: Proposal, now: datetime) -> Entry | None:
    if may_be_released(proposal):
        return None if flow.is_halted else messages.release(proposal)
    if proposal.state is ProposalState.EVALUATED and not proposal.nobody_qualifies:
        return messages.approval_requested(flow, proposal, now)
    expired = proposal.expired_ask(now)
    return None if expired is None else _expired(flow, proposal, expired, now)


def _expired(flow: Flow, proposal: Proposal, ask: Ask, now: datetime) -> Entry | None:
    event_id = proposal.recorded.event_id
    cause = ApprovalCause.APPROVAL_CAUSE_EXPIRY
    match ask.gate.on_expiry:
        case ExpiryAction.EXPIRY_ACTION_REJECT:
            why = f"gate {ask.gate.name} rejects when nobody answers"
            return _refusal(flow, proposal, cause, now, why=why)
        case ExpiryAction.EXPIRY_ACTION_APPROVE:
            message = ApprovalGiven(
                proposal_id=event_id,
                digest=proposal.digest,
                cause=cause,
                comment=f"gate {ask.gate.name} approves when nobody answers",
            )
            return messages.decision(
                flow, message, about=f"{event_id}:expiry", now=now, step=proposal.recorded.event.step
            )
        case _:
            # If a person is asked instead, the matter is escalated like any other.
            return None


def _refusal(
    flow: Flow,
    proposal: Proposal,
    cause: ApprovalCause.ValueType,
    now: datetime,
    *,
    voter: str = "",
    why: str,
) -> Entry:
    event = proposal.recorded.event
    message = ApprovalRefused(
        proposal_id=event.event_id,
        digest=proposal.digest,
        voter=voter,
        comment=why,
        cause=cause,
        proposal=event.data,
    )
    about = f"{event.event_id}:{ApprovalCause.Name(cause)}"
    return messages.decision(flow, message, about=about, now=now, step=event.step)
