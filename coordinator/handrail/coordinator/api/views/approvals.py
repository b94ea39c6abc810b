"""API views of proposals that need people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.any_pb2 import Any
from google.protobuf.struct_pb2 import Struct

from handrail.coordinator.api.qualified_id import QualifiedId, qualified
from handrail.mesh.contracts.payload_json import Json
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Ask, Flow, Proposal, ProposalState
from handrail.mesh.wire.envelope import Unreadable, timestamp
from handrail.v1.decision_pb2 import GateRequest
from handrail.v1.flow_service_pb2 import Approval, ApprovalStatus, Vote

MAX_JSON_BYTES = 1 << 20
"""The largest JSON form of a proposal in a response, in bytes; gRPC clients accept 4 MiB by default."""

MAX_TOGETHER_BYTES = 2 << 20
"""The most bytes that all approvals of a flow take in one response, their data included."""

STATUS = {
    ProposalState.EVALUATED: ApprovalStatus.APPROVAL_STATUS_PENDING,
    ProposalState.PENDING: ApprovalStatus.APPROVAL_STATUS_PENDING,
    ProposalState.APPROVED: ApprovalStatus.APPROVAL_STATUS_APPROVED,
    ProposalState.RELEASED: ApprovalStatus.APPROVAL_STATUS_APPROVED,
    ProposalState.REJECTED: ApprovalStatus.APPROVAL_STATUS_REJECTED,
    ProposalState.EXPIRED: ApprovalStatus.APPROVAL_STATUS_EXPIRED,
    ProposalState.WITHDRAWN: ApprovalStatus.APPROVAL_STATUS_WITHDRAWN,
}
"""The status of an approval, by the state of its proposal."""


def asks_people(proposal: Proposal) -> bool:
    """Tells whether people were asked about a proposal, which makes it an approval."""
    return proposal.requested_at is not None


def approval_view(flow: Flow, proposal: Proposal) -> Approval:
    """Shows a proposal: who has to approve it, who did, and the digest that a vote must name."""
    event = proposal.recorded.event
    view = Approval(
        approval_id=qualified(flow, proposal.recorded.event_id),
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
            Vote(
                voter=ballot.voter,
                approve=ballot.approve,
                comment=ballot.comment,
                time=timestamp(ballot.time),
                on_behalf_of=ballot.on_behalf_of,
            )
            for ballot in proposal.ballots
        ],
        data_json=_opened(flow, event.data),
    )
    if proposal.requested_at is not None:
        view.request_time.CopyFrom(timestamp(proposal.requested_at))
    if proposal.expires_at is not None:
        view.expire_time.CopyFrom(timestamp(proposal.expires_at))
    return view


def unreadable_approval(item: Unreadable) -> Approval:
    """Shows an approval that can't be read: the reason, without a status."""
    why = _struct({"@error": f"can't be read: {item.why}"})
    return Approval(
        approval_id=str(QualifiedId(item.flow_type, item.flow_id, item.proposal_id)),
        flow_id=item.flow_id,
        flow_type=item.flow_type,
        data_json=why,
    )


def fitted(approvals: Iterable[Approval]) -> Iterator[Approval]:
    """Fits approvals into one response: later ones come without their data if they would not fit."""
    space = MAX_TOGETHER_BYTES
    for approval in approvals:
        space -= approval.ByteSize()
        if space < 0:
            approval.data_json.CopyFrom(_not_opened(approval.data, "omitted for its size; GetApproval returns it"))
            approval.data.ClearField("value")
        yield approval


def _opened(flow: Flow, data: Any) -> Struct:
    """Returns the proposal as JSON, or the reason if it has no JSON form or one that is too large."""
    try:
        opened = _struct(flow.template.contracts.to_json(data))
        size = opened.ByteSize()
    except (HandrailError, ValueError, TypeError, RecursionError) as error:
        return _not_opened(data, f"can't be shown as JSON; its bytes are in data: {error}")
    if size > MAX_JSON_BYTES:
        return _not_opened(data, f"its JSON form has {size} bytes, more than {MAX_JSON_BYTES}; its bytes are in data")
    return opened


def _not_opened(data: Any, why: str) -> Struct:
    return _struct({"@type": data.type_url, "@error": why})


def _struct(value: Mapping[str, Json]) -> Struct:
    """Returns the JSON object as a message, at a third of the cost of `json_format.ParseDict`."""
    struct = Struct()
    struct.update(value)
    return struct


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
        reassigned_by=ask.reassigned_by,
    )
