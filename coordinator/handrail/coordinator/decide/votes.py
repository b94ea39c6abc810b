"""Judges votes and reassignments: returns the decision to record, or raises the reason against it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from handrail.coordinator.decide import messages
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.operator_requests import moment, refusal
from handrail.mesh.flow import Flow, Proposal, Void
from handrail.mesh.fold.votes import ballot_of, judge_vote
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.identity import same
from handrail.v1.decision_pb2 import ApprovalCause, ApprovalGiven, ApprovalReassigned, ApprovalRefused
from handrail.v1.delegation_service_pb2 import ListedDelegation
from handrail.v1.error_reason_pb2 import ErrorReason


def vote(
    flow: Flow,
    caller: Caller,
    *,
    approval_id: str,
    digest: str,
    approve: bool,
    comment: str = "",
    delegations: Sequence[ListedDelegation] = (),
) -> Entry | int:
    """Votes on a proposal, or returns the sequence of the caller's equal vote.

    A caller whose own roles don't qualify votes with the first of the `delegations`, which are in force, that does.

    Raises APPROVAL_NOT_FOUND, APPROVAL_CLOSED, DIGEST_MISMATCH, MISSING_ROLE, REQUESTER_MAY_NOT_VOTE,
    PROPOSER_MAY_NOT_VOTE (also for callers that speak for the proposing agent), and ALREADY_VOTED if the caller's
    counted vote was different.
    """
    proposal = flow.proposals.get(approval_id)
    if proposal is None:
        raise refusal(ErrorReason.ERROR_REASON_APPROVAL_NOT_FOUND, flow, f"it has no proposal {approval_id}")
    ballot = ballot_of(proposal, caller.subject)
    if (
        ballot is not None
        and same(ballot.voter, caller.subject)
        and (ballot.approve, proposal.digest) == (approve, digest)
    ):
        return ballot.sequence
    used = _qualifying(flow, proposal, caller, digest, delegations)
    if caller.agent and caller.agent == proposal.recorded.agent:
        text = f"{caller.subject} speaks for {caller.agent}, which proposed it, and may not vote on it"
        raise refusal(ErrorReason.ERROR_REASON_PROPOSER_MAY_NOT_VOTE, flow, text)
    return _vote(flow, proposal, digest=digest, approve=approve, comment=comment, caller=caller, used=used)


def reassigning(
    flow: Flow, caller: Caller, *, approval_id: str, digest: str, gate: str, roles: Iterable[str], reason: str = ""
) -> Entry:
    """Lets other roles vote on a proposal at one gate; an empty `gate` means the only one that waits for votes.

    Raises APPROVAL_NOT_FOUND. What else would not count is refused as the fold judges it.
    """
    proposal = flow.proposals.get(approval_id)
    waiting = [] if proposal is None else [ask.gate.name for ask in proposal.asks if not ask.passed]
    if proposal is None or (not gate and len(waiting) != 1):
        text = f"it has no proposal {approval_id}" if proposal is None else f"name the gate: {', '.join(waiting)}"
        raise refusal(ErrorReason.ERROR_REASON_APPROVAL_NOT_FOUND, flow, text)
    message = ApprovalReassigned(
        proposal_id=approval_id,
        digest=digest,
        gate=gate or waiting[0],
        roles=sorted(set(roles)),
        by=caller.subject,
        reason=reason,
    )
    about = f"{approval_id}:{message.gate}:{','.join(message.roles)}"
    return messages.decision(flow, message, about=about, now=moment(flow), step=proposal.recorded.event.step)


def _qualifying(
    flow: Flow, proposal: Proposal, caller: Caller, digest: str, delegations: Sequence[ListedDelegation]
) -> ListedDelegation | None:
    """The delegation that the caller's vote needs; None if the caller's own roles qualify. Raises why none counts."""
    refused = judge_vote(proposal, caller.subject, caller.approver_roles(flow.flow_type), digest)
    if refused is None:
        return None
    if refused.reason == ErrorReason.ERROR_REASON_MISSING_ROLE:
        for each in delegations:
            passed_on = each.delegation
            why = judge_vote(proposal, caller.subject, (passed_on.role,), digest, on_behalf_of=passed_on.delegator)
            if why is None and passed_on.agent and passed_on.agent == proposal.recorded.agent:
                text = (
                    f"{passed_on.delegator} speaks for {passed_on.agent}, which proposed it, and can't pass on a vote"
                )
                why = Void(text, ErrorReason.ERROR_REASON_PROPOSER_MAY_NOT_VOTE)
            if why is None:
                return each
            if why.reason != ErrorReason.ERROR_REASON_MISSING_ROLE:
                refused = why
    raise refusal(refused.reason, flow, refused.text)


def _vote(
    flow: Flow,
    proposal: Proposal,
    *,
    digest: str,
    approve: bool,
    comment: str,
    caller: Caller,
    used: ListedDelegation | None,
) -> Entry:
    event_id = proposal.recorded.event_id
    refused = proposal.recorded.event.data
    vote = ApprovalGiven() if approve else ApprovalRefused(proposal=refused)
    vote.proposal_id, vote.digest, vote.comment = event_id, digest, comment
    vote.voter, vote.cause = caller.subject, ApprovalCause.APPROVAL_CAUSE_VOTE
    if used is None:
        vote.roles.extend(sorted(caller.approver_roles(flow.flow_type)))
    else:
        vote.roles.append(used.delegation.role)
        vote.on_behalf_of, vote.delegation = used.delegation.delegator, used.sequence
    step = proposal.recorded.event.step
    return messages.decision(flow, vote, about=f"{event_id}:{caller.subject}", now=moment(flow), step=step)
