"""A payload that is nested too deep, or too large as JSON, is in no list's way."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import SourceCodeInfo
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.source_context_pb2 import SourceContext
from google.protobuf.struct_pb2 import Struct

from handrail.mesh.bus import Bus
from handrail.mesh.contracts import Contracts
from handrail.mesh.contracts.payload_json import MAX_DEPTH
from handrail.mesh.template import Template
from handrail.mesh.wire.subjects import Kind
from handrail.v1 import approval_service_pb2 as approvals_pb
from handrail.v1 import flow_service_pb2 as pb
from payments.v1.payments_pb2 import CustomerNotified
from tests.support import flows
from tests.support.api import Api, bearer
from tests.support.mesh import publish
from tests.support.waiting import eventually


def template(name: str, emits: type[Message]) -> Template:
    """The small flow type, gated, with a step that answers with a message of this type."""
    proto = flows.template(name, gated=True).proto
    first, second = (message.DESCRIPTOR.full_name for message in (SourceContext, emits))
    proto.starts_with[:] = [first]
    proto.steps[0].after[:], proto.steps[0].emits[:], proto.steps[1].after[:] = [first], [second], [second]
    proto.gates[0].on = second
    return Template.compile(proto, Contracts.from_messages([SourceContext, emits, CustomerNotified]))


def struct(levels: int) -> Struct:
    value: Any = "x"
    for _ in range(levels):
        value = {"a": value}
    return ParseDict(value, Struct())


async def ask(api: Api, method: str, request: Any, answer: Any) -> Any:
    token = api.token("olga", "operator", "viewer", "finance")
    return await api.call(method, request, answer, metadata=bearer(token), timeout=30)


async def asked(api: Api) -> dict[str, Any]:
    request = approvals_pb.ListApprovalsRequest(scan=True, page_size=50)
    found = await ask(api, "ApprovalService/ListApprovals", request, approvals_pb.ListApprovalsResponse)
    return {each.flow_id: each for each in found.approvals}


async def test_lists_go_on_beside_what_is_too_deep_or_too_large(api: Api, bus: Bus) -> None:
    await api.replica.catalog.put(flows.stored(template("deep", Struct)))
    await api.replica.catalog.put(flows.stored(template("wide", SourceCodeInfo.Location)))
    fits, too_deep, far_too_deep, wide = (f"{number:032x}" for number in range(1, 5))
    proposed = {
        fits: struct(MAX_DEPTH),
        too_deep: struct(32),
        far_too_deep: struct(45),
        wide: SourceCodeInfo.Location(path=[1] * 400_000),
    }
    for flow_id, message in proposed.items():
        flow_type = "wide" if flow_id == wide else "deep"
        first = flows.start(flow_id, flow_type=flow_type, message=SourceContext(file_name="a"))
        proposal = flows.enriched(flow_id, flow_type=flow_type, kind=Kind.PROPOSAL, message=message)
        await publish(bus, first, proposal)

    async def all_that_fit_ask() -> bool:
        return set(await asked(api)) == {fits, wide}

    await eventually(all_that_fit_ask)
    listed = await asked(api)
    assert listed[fits].data_json["a"] == struct(MAX_DEPTH)["a"]
    assert "more than 1048576" in listed[wide].data_json["@error"]
    assert listed[wide].data.value == proposed[wide].SerializeToString()
    for flow_id in proposed:
        shown = (await ask(api, "FlowService/GetFlow", pb.GetFlowRequest(flow_id=flow_id), pb.GetFlowResponse)).flow
        assert len(shown.approvals) == (flow_id in (fits, wide))
        request = pb.ListFlowEventsRequest(flow_id=flow_id)
        events = (await ask(api, "FlowService/ListFlowEvents", request, pb.ListFlowEventsResponse)).events
        assert [bool(event.void_reason) for event in events[:2]] == [False, flow_id in (too_deep, far_too_deep)]
    flows_listed = await ask(
        api, "FlowService/ListFlows", pb.ListFlowsRequest(scan=True, page_size=9), pb.ListFlowsResponse
    )
    assert len(flows_listed.flows) == 4
