"""The least that a Python program needs to make a call: a channel, the contract, a token. Prints the answer as JSON."""

from __future__ import annotations

import sys

import grpc
from google.protobuf.json_format import MessageToJson

from handrail.v1.flow_service_pb2 import GetFlowRequest, ListFlowsRequest
from handrail.v1.flow_service_pb2_grpc import FlowServiceStub


def main(address: str, token: str, flow_id: str = "") -> None:
    """Reads a flow, or lists flows by a scan."""
    metadata = (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(address) as channel:
        flows = FlowServiceStub(channel)
        if flow_id:
            print(MessageToJson(flows.GetFlow(GetFlowRequest(flow_id=flow_id), metadata=metadata, timeout=10)))
        else:
            print(MessageToJson(flows.ListFlows(ListFlowsRequest(scan=True), metadata=metadata, timeout=10)))


if __name__ == "__main__":
    main(*sys.argv[1:])
