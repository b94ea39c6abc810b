"""What the API shows of a flow: the answer of every call that reads one, and flows of several kinds to be shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from handrail.analysis.evidence import Export, Writer, verify, versions_of
from handrail.mesh.bus import NatsBus
from handrail.mesh.template import Template
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry
from handrail.v1 import act_service_pb2 as acts
from handrail.v1 import approval_service_pb2 as approvals
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.act_pb2 import Act
from handrail.v1.event_pb2 import RecordedEvent
from handrail.v1.template_pb2 import FailureAction
from handrail.v1.template_service_pb2 import GetTemplateRequest, GetTemplateResponse
from tests.support import flows, forged
from tests.support.api import EOF, Api, bearer
from tests.support.mesh import Mesh, publish
from tests.support.recorded_refunds import record, refund_template
from tests.support.retained import flow_id


@dataclass
class Shown:
    """All that is shown of one flow."""

    flow: pb.Flow
    at_each_event: list[pb.Flow] = field(default_factory=list)
    events: list[RecordedEvent] = field(default_factory=list)
    watched: list[pb.WatchFlowResponse] = field(default_factory=list)
    plan: Message | None = None
    parts: list[Message] = field(default_factory=list)


async def call(api: Api, method: str, request: Message, answer: type[Any], who: str = "olga") -> Any:
    """Calls as an operator."""
    return await api.call(method, request, answer, metadata=bearer(api.token(who, "operator")))


async def flow_of(api: Api, flow_id: str, **fields: Any) -> pb.Flow:
    """A flow, without the mark that says where it was read."""
    request = pb.GetFlowRequest(flow_id=flow_id, **fields)
    flow: pb.Flow = (await call(api, "FlowService/GetFlow", request, pb.GetFlowResponse)).flow
    flow.ClearField("archived")
    return flow


async def events_of(api: Api, flow_id: str) -> list[RecordedEvent]:
    """The events of a flow, page by page."""
    request, found = pb.ListFlowEventsRequest(flow_id=flow_id, page_size=3), list[RecordedEvent]()
    while True:
        page = await call(api, "FlowService/ListFlowEvents", request, pb.ListFlowEventsResponse)
        found += page.events
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def evidence_of(api: Api, flow_id: str) -> list[Any]:
    """The messages of the evidence of a flow, which is checked."""
    flow = await flow_of(api, flow_id)
    asked = [GetTemplateRequest(name=flow.flow_type, version=each) for each in versions_of(flow)]
    stored = [(await call(api, "TemplateService/GetTemplate", each, GetTemplateResponse)).stored for each in asked]
    writer = Writer(flow, stored, Export("olga", datetime.now(UTC), "here"))
    lines = [*writer.begin(), *writer.messages(await events_of(api, flow_id)), *writer.end()]
    assert writer.is_whole
    assert verify(lines).messages == flow.message_count
    found: list[Any] = json.loads(b"".join(lines))["messages"]
    return found


async def watched(api: Api, flow_id: str, *, after: int = 0) -> list[pb.WatchFlowResponse]:
    """What a watch sends until its first checkpoint."""
    found: list[pb.WatchFlowResponse] = []
    watch = opened_watch(api, flow_id, after=after)
    while not found or found[-1].HasField("event"):
        response = await watch.read()
        assert response is not EOF
        found.append(response)
    watch.cancel()
    return found


def opened_watch(api: Api, flow_id: str, *, after: int = 0) -> Any:
    """A watch, to be read."""
    rpc = api.channel.unary_stream(
        "/handrail.v1.FlowService/WatchFlow",
        request_serializer=pb.WatchFlowRequest.SerializeToString,
        response_deserializer=pb.WatchFlowResponse.FromString,
    )
    request = pb.WatchFlowRequest(flow_id=flow_id, after_sequence=after)
    return rpc(request, metadata=bearer(api.token("olga", "operator")))


async def shown(api: Api, flow_id: str) -> Shown:
    """Asks for everything that the API shows of a flow."""
    whole = Shown(await flow_of(api, flow_id))
    whole.events = await events_of(api, flow_id)
    for event in whole.events:
        try:
            whole.at_each_event.append(await flow_of(api, flow_id, as_of_sequence=event.sequence))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:  # it had not begun
                raise
    whole.at_each_event.append(await flow_of(api, flow_id, as_of_time=whole.events[-1].time))
    whole.watched = await watched(api, flow_id)
    plan = pb.PlanCompensationRequest(flow_id=flow_id)
    whole.plan = await call(api, "FlowService/PlanCompensation", plan, pb.PlanCompensationResponse)
    for approval in whole.flow.approvals:
        asked = approvals.GetApprovalRequest(approval_id=approval.approval_id)
        whole.parts.append(await call(api, "ApprovalService/GetApproval", asked, approvals.GetApprovalResponse))
    for act in whole.flow.acts:
        wanted = acts.GetActRequest(act_id=act.act_id)
        whole.parts.append(await call(api, "ActService/GetAct", wanted, acts.GetActResponse))
    return whole


async def store_templates(mesh: Mesh) -> None:
    """Stores the flow types of `many_kinds`."""
    failing = flows.template("audit", attempts=1).proto
    failing.steps[0].on_failure = FailureAction.FAILURE_ACTION_FAIL
    failing.require_two.append(Act.ACT_CANCEL)
    audit = Template.compile(failing, flows.template("audit").contracts)
    await mesh.put(refund_template(), flows.template("loan"), audit)


async def many_kinds(bus: NatsBus, api: Api) -> Sequence[str]:
    """Has flows end in many ways, before or while the coordinator decides, and returns their ids."""
    return [
        await _with_void_messages(bus, flow_id(1)),
        await _failed(bus, flow_id(2)),
        await _compensated(bus, api, flow_id(3)),
        await _cancelled_by_two(bus, api, flow_id(4)),
    ]


async def record_refunds(bus: NatsBus, number: int) -> Sequence[str]:
    """Stores refunds, some of which people approved or refused, and returns their ids."""
    await record(bus, number, seed=4)
    return [ids.flow_id_from_key("refund", f"cb-4-{each}") for each in range(number)]


def of_type(flow_type: str, entry: Entry) -> Entry:
    """The same message in a flow of another type."""
    entry.event.flow_type = flow_type
    return Entry(entry.address._replace(flow_type=flow_type), entry.event)


async def _with_void_messages(bus: NatsBus, flow_id: str) -> str:
    """A complete flow, with an outcome that nothing asked for, one of a stranger, and one that can't be read."""
    stranger = of_type("loan", forged.outcome(flow_id, "stranger", "enrich", flows.told(), root="e" * 32))
    unasked = of_type("loan", forged.outcome(flow_id, "enrichment", "enrich", flows.enrichment(), root="f" * 32))
    begun = flows.start(flow_id, flow_type="loan")
    await publish(bus, begun, stranger, unasked)
    unreadable = begun.address._replace(agent="enrichment", event_id="d" * 32)
    await bus.publish(unreadable.subject, b"\xff\xff")
    await publish(bus, flows.enriched(flow_id, flow_type="loan"), flows.notified(flow_id, flow_type="loan"))
    return flow_id


async def _failed(bus: NatsBus, flow_id: str) -> str:
    """A flow whose first step failed for good."""
    broken = of_type("audit", forged.failed(flow_id, "enrichment", "enrich", root=ids.start_id(flow_id)))
    await publish(bus, flows.start(flow_id, flow_type="audit"), broken)
    return flow_id


async def _compensated(bus: NatsBus, api: Api, flow_id: str) -> str:
    """A flow that a person undid."""
    await publish(bus, flows.start(flow_id, flow_type="loan"))
    undo = pb.CompensateFlowRequest(flow_id=flow_id, reason="a mistake")
    await call(api, "FlowService/CompensateFlow", undo, pb.CompensateFlowResponse)
    return flow_id


async def _cancelled_by_two(bus: NatsBus, api: Api, flow_id: str) -> str:
    """A flow that one person cancelled, and another confirmed it."""
    await publish(bus, flows.start(flow_id, flow_type="audit"))
    cancel = pb.CancelFlowRequest(flow_id=flow_id, reason="no longer wanted")
    act = (await call(api, "FlowService/CancelFlow", cancel, pb.CancelFlowResponse)).pending_act
    confirm = acts.ConfirmActRequest(act_id=act.act_id, digest=act.digest)
    await call(api, "ActService/ConfirmAct", confirm, acts.ConfirmActResponse, "kim")
    return flow_id
