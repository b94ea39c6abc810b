"""Proposals that ask people, as the API shows them."""

from __future__ import annotations

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from handrail.mesh.envelope import timestamp
from handrail.mesh.flow import Ask, Flow, Proposal, ProposalState
from handrail.v1.decision_pb2 import GateRequest
from handrail.v1.flow_service_pb2 import Approval, ApprovalStatus, Vote

STATUS = {
    ProposalState.EVALUATED: ApprovalStatus.APPROVAL_STATUS_PENDING,
    ProposalState.PENDING: ApprovalStatus.APPROVAL_STATUS_PENDING,
    ProposalState.APPROVED: ApprovalStatus.APPROVAL_STATUS_APPROVED,
    ProposalState.RELEASED: ApprovalStatus.APPROVAL_STATUS_APPROVED,
    ProposalState.REJECTED: ApprovalStatus.APPROVAL_STATUS_REJECTED,
    ProposalState.EXPIRED: ApprovalStatus.APPROVAL_STATUS_EXPIRED,
    ProposalState.WITHDRAWN: ApprovalStatus.APPROVAL_STATUS_WITHDRAWN,
}
"""Where an approval stands, by the state of its proposal."""


def asks_people(proposal: Proposal) -> bool:
    """Whether people were asked about a proposal: then it is an approval."""
    return proposal.requested_at is not None


def approval_view(flow: Flow, proposal: Proposal) -> Approval:
    """A proposal with who has to approve it, who did, and the digest that a vote has to name."""
    event = proposal.recorded.event
    view = Approval(
        approval_id=proposal.recorded.event_id,
        flow_id=flow.flow_id,
        flow_type=flow.flow_type,
        step=event.step,
        agent=proposal.recorded.agent,
        type=proposal.recorded.type,
        data=event.data,
        digest=proposal.digest,
        status=STATUS[proposal.state],
        gates=[_gate(proposal, ask) for ask in proposal.asks],
        votes=[
            Vote(voter=ballot.voter, approve=ballot.approve, comment=ballot.comment, time=timestamp(ballot.time))
            for ballot in proposal.ballots
        ],
        data_json=ParseDict(flow.template.contracts.to_json(event.data), Struct()),
    )
    if proposal.requested_at is not None:
        view.request_time.CopyFrom(timestamp(proposal.requested_at))
    if proposal.expires_at is not None:
        view.expire_time.CopyFrom(timestamp(proposal.expires_at))
    return view


def _gate(proposal: Proposal, ask: Ask) -> GateRequest:
    due = proposal.expiry(ask)
    return GateRequest(
        gate=ask.gate.name,
        roles=sorted(ask.gate.roles),
        quorum=ask.gate.quorum,
        not_the_requester=ask.gate.not_the_requester,
        requester=ask.requester if ask.gate.not_the_requester else "",
        expire_time=None if due is None else timestamp(due),
        reason=ask.reason,
    )
