"""Calls of the coordinator's API."""

from __future__ import annotations

import itertools

import grpc.aio
from google.protobuf.any_pb2 import Any

from bench.installation import Installation
from bench.unary import UnaryCalls
from handrail.v1 import flow_service_pb2
from handrail.v1.approval_service_pb2 import ApproveProposalRequest, ApproveProposalResponse
from handrail.v1.decision_pb2 import FLOW_STATUS_COMPLETED
from handrail.v1.flow_service_pb2_grpc import FlowServiceStub

_TIMEOUT = 30.0
_CHANNELS = 4
"""Connections, so that a thousand streams do not share one."""

_APPROVER, _OPERATOR = "anna", "olga"
_APPROVE = "/handrail.v1.ApprovalService/ApproveProposal"


class Calls:
    """Calls as an approver, or as an operator."""

    def __init__(self, installation: Installation) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(installation.address, options) for _ in range(_CHANNELS)]
        self._approvals = UnaryCalls(installation.address, _APPROVE, installation.token(_APPROVER))
        self._flows = itertools.cycle([FlowServiceStub(channel) for channel in self._channels])
        self._operator = (("authorization", f"Bearer {installation.token(_OPERATOR)}"),)

    async def approve(self, approval_id: str, digest: str) -> None:
        """Votes yes."""
        request = ApproveProposalRequest(approval_id=approval_id, digest=digest)
        response = await self._approvals.call(request.SerializeToString())
        ApproveProposalResponse.FromString(response)

    async def start(self, flow_type: str, data: Any) -> str:
        """Starts a flow and returns its id."""
        request = flow_service_pb2.StartFlowRequest(flow_type=flow_type, data=data)
        answer = await next(self._flows).StartFlow(request, metadata=self._operator, timeout=_TIMEOUT)
        return answer.flow_id

    async def get(self, flow_id: str) -> None:
        """Reads a flow."""
        request = flow_service_pb2.GetFlowRequest(flow_id=flow_id)
        await next(self._flows).GetFlow(request, metadata=self._operator, timeout=_TIMEOUT)

    async def watch(self, flow_id: str) -> int:
        """Watches a flow until it is completed; returns the number of its events."""
        request = flow_service_pb2.WatchFlowRequest(flow_id=flow_id)
        call = next(self._flows).WatchFlow(request, metadata=self._operator, timeout=_TIMEOUT)
        events = 0
        async for response in call:
            events += response.HasField("event")
            if response.status == FLOW_STATUS_COMPLETED:
                break
        call.cancel()
        return events

    async def close(self) -> None:
        """Closes the connections."""
        self._approvals.close()
        for channel in self._channels:
            await channel.close(None)
