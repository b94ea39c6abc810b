"""Fields that the stored contract does not know get through the API unchanged, and are shown to who approves."""

from __future__ import annotations

import base64
from typing import Any

from google.protobuf import any_pb2
from google.protobuf.json_format import MessageToDict

from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import pack
from handrail.v1 import approval_service_pb2 as approvals
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1 import template_service_pb2
from handrail.v1.template_pb2 import RejectAction
from tests.support import flows
from tests.support.api import Api, bearer
from tests.support.waiting import eventually

UNKNOWN = b"\xba\x3e\x06please"
"""Field 999, a text, in the wire format: what a later contract may have."""

LIST = (approvals.ListApprovalsRequest(scan=True), approvals.ListApprovalsResponse)


def with_unknown(data: any_pb2.Any) -> any_pb2.Any:
    return any_pb2.Any(type_url=data.type_url, value=data.value + UNKNOWN)


async def test_a_field_of_a_later_contract_passes_publish_event_gate_and_release(api: Api) -> None:
    template = flows.template(gated=True)
    template.proto.gates[0].on_reject = RejectAction.REJECT_ACTION_COMPENSATE
    operator, people = bearer(api.token("olga", "operator")), bearer(api.token("anna", "finance"))
    put = template_service_pb2.PutTemplateRequest(template=template.proto, descriptors=template.descriptor_set)
    await api.call("TemplateService/PutTemplate", put, template_service_pb2.PutTemplateResponse, metadata=operator)
    activate = template_service_pb2.ActivateTemplateRequest(name="refund", version=1)
    response = template_service_pb2.ActivateTemplateResponse
    await api.call("TemplateService/ActivateTemplate", activate, response, metadata=operator)

    start = pb.StartFlowRequest(flow_type="refund", key="k", data=with_unknown(pack(flows.received())))
    flow_id = (await api.call("FlowService/StartFlow", start, pb.StartFlowResponse, metadata=operator)).flow_id
    data = with_unknown(pack(flows.enrichment()))
    publish = pb.PublishEventRequest(
        flow_type="refund",
        flow_id=flow_id,
        step="enrich",
        root=ids.start_id(flow_id),
        attempt=1,
        output_total=1,
        data=data,
    )
    agent = bearer(api.token("enrichment", agent="enrichment"))
    await api.call("FlowService/PublishEvent", publish, pb.PublishEventResponse, metadata=agent)

    async def ask(method: str, request: Any, response: type[Any]) -> Any:
        return await api.call(method, request, response, metadata=people)

    async def asked() -> bool:
        return bool((await ask("ApprovalService/ListApprovals", *LIST)).approvals)

    await eventually(asked)
    (approval,) = (await ask("ApprovalService/ListApprovals", *LIST)).approvals
    assert MessageToDict(approval.data_json)["@unknown"] == base64.b64encode(UNKNOWN).decode()
    vote = approvals.ApproveProposalRequest(approval_id=approval.approval_id, digest=approval.digest)
    await ask("ApprovalService/ApproveProposal", vote, approvals.ApproveProposalResponse)

    async def enriched() -> list[bytes]:
        request = pb.ListFlowEventsRequest(flow_id=flow_id)
        listed = await ask("FlowService/ListFlowEvents", request, pb.ListFlowEventsResponse)
        return [each.event.data.value for each in listed.events if each.type == flows.ENRICHED]

    async def released() -> bool:
        return len(await enriched()) == 2

    await eventually(released)
    assert await enriched() == [data.value, data.value]
