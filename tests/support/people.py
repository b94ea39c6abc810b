"""People who call a coordinator over gRPC, each with their own token."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import grpc.aio
from google.protobuf.message import Message

from handrail.mesh.wire.envelope import pack
from handrail.v1 import approval_service_pb2 as approvals
from handrail.v1 import flow_service_pb2 as flows
from handrail.v1 import quarantine_service_pb2 as quarantine
from handrail.v1.approval_service_pb2_grpc import ApprovalServiceStub
from handrail.v1.decision_pb2 import Choice, FlowStatus
from handrail.v1.flow_service_pb2_grpc import FlowServiceStub
from handrail.v1.quarantine_service_pb2_grpc import QuarantineServiceStub
from tests.support.api import bearer
from tests.support.waiting import PATIENCE, eventually


class Door(Protocol):
    """A coordinator that can be called, and whoever signs its tokens."""

    @property
    def address(self) -> str:
        """Host and port."""

    @property
    def channel(self) -> grpc.aio.Channel:
        """A channel without a token."""

    def token(self, subject: str, *roles: str, agent: str = "") -> str:
        """A valid token."""


class People:
    """Calls over gRPC: olga is an operator, vera a viewer; anna and ben have the role finance."""

    ROLES: Mapping[str, Sequence[str]] = {
        "olga": ("operator",),
        "vera": ("viewer",),
        "stan": ("starter", "finance"),
        "anna": ("finance",),
        "ben": ("finance",),
    }

    def __init__(self, api: Door) -> None:
        self.api = api
        self.flows = FlowServiceStub(api.channel)
        self.approvals = ApprovalServiceStub(api.channel)
        self.quarantine = QuarantineServiceStub(api.channel)

    def by(self, name: str, *, agent: str = "") -> Sequence[tuple[str, str]]:
        """The call metadata with the person's token."""
        return bearer(self.api.token(name, *self.ROLES.get(name, ()), agent=agent))

    async def start(self, data: Message, *, by: str = "olga", key: str = "") -> flows.StartFlowResponse:
        """Starts a flow."""
        request = flows.StartFlowRequest(flow_type="refund", data=pack(data), key=key)
        return await self.flows.StartFlow(request, metadata=self.by(by), timeout=PATIENCE)

    async def flow(self, flow_id: str) -> flows.Flow:
        """The flow in its current state."""
        answer = await self.flows.GetFlow(flows.GetFlowRequest(flow_id=flow_id), metadata=self.by("vera"))
        return answer.flow

    async def until(self, flow_id: str, condition: Callable[[flows.Flow], bool]) -> flows.Flow:
        """Reads the flow until the condition holds."""
        return await eventually(lambda: self.flow(flow_id), condition)

    async def until_status(self, flow_id: str, wanted: str) -> flows.Flow:
        """Reads the flow until it has this status: `COMPLETED`."""
        return await self.until(flow_id, lambda flow: name_of(flow.status) == wanted)

    async def events(self, flow_id: str) -> list[Any]:
        """The recorded events of a flow."""
        request = flows.ListFlowEventsRequest(flow_id=flow_id, page_size=500)
        return list((await self.flows.ListFlowEvents(request, metadata=self.by("vera"))).events)

    async def approval(self, flow_id: str) -> flows.Approval:
        """Waits for the flow to ask for an approval, and returns it."""
        return (await self.until_status(flow_id, "WAITING_APPROVAL")).approvals[0]

    async def approve(self, approval: flows.Approval, *, by: str, digest: str = "") -> flows.Approval:
        """Vote yes."""
        request = approvals.ApproveProposalRequest(approval_id=approval.approval_id, digest=digest or approval.digest)
        return (await self.approvals.ApproveProposal(request, metadata=self.by(by))).approval

    async def reject(self, approval: flows.Approval, *, by: str) -> flows.Approval:
        """Vote no."""
        request = approvals.RejectProposalRequest(approval_id=approval.approval_id, digest=approval.digest)
        return (await self.approvals.RejectProposal(request, metadata=self.by(by))).approval

    async def resolve(self, flow_id: str, choice: Choice.ValueType) -> flows.Flow:
        """Answers the flow's only escalation."""
        request = flows.ResolveEscalationRequest(flow_id=flow_id, choice=choice, reason="a test")
        return (await self.flows.ResolveEscalation(request, metadata=self.by("olga"))).flow

    async def cancel(self, flow_id: str) -> flows.Flow:
        """Cancels the flow and undoes its effects."""
        request = flows.CancelFlowRequest(flow_id=flow_id, reason="a test")
        return (await self.flows.CancelFlow(request, metadata=self.by("olga"))).flow

    async def compensate(self, flow_id: str, *, to_step: str = "", run_again: Iterable[str] = ()) -> flows.Flow:
        """Compensates the flow."""
        request = flows.CompensateFlowRequest(flow_id=flow_id, reason="a test", to_step=to_step, run_again=run_again)
        return (await self.flows.CompensateFlow(request, metadata=self.by("olga"))).flow

    async def quarantined(self) -> list[quarantine.QuarantinedMessage]:
        """All quarantined messages, with their bytes."""
        found: list[quarantine.QuarantinedMessage] = []
        request = quarantine.ListQuarantinedRequest(page_size=100)
        while True:
            page = await self.quarantine.ListQuarantined(request, metadata=self.by("vera"))
            for each in page.messages:
                one = quarantine.GetQuarantinedRequest(agent=each.agent, quarantine_id=each.quarantine_id)
                found.append((await self.quarantine.GetQuarantined(one, metadata=self.by("vera"))).message)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token


def name_of(status: FlowStatus.ValueType) -> str:
    """`COMPLETED`, …"""
    return FlowStatus.Name(status).removeprefix("FLOW_STATUS_")
