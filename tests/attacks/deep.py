"""A hostile agent proposes a message that is nested so deep that whoever shows it breaks."""

from __future__ import annotations

from contextlib import suppress
from functools import cache

from google.protobuf.any_pb2 import Any
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.source_context_pb2 import SourceContext

from handrail.mesh.bus import Bus
from handrail.mesh.contracts import Contracts, descriptor_set_for
from handrail.mesh.errors import BrokerPermission
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import TYPE_URL, Entry
from handrail.mesh.wire.subjects import Kind
from handrail.v1.approval_service_pb2 import ListApprovalsRequest
from handrail.v1.flow_service_pb2 import ListFlowsRequest
from handrail.v1.template_pb2 import REJECT_ACTION_FAIL
from handrail.v1.template_service_pb2 import PutTemplateRequest
from handrail.v1.template_service_pb2_grpc import TemplateServiceStub
from payments.v1.payments_pb2 import CustomerNotified
from tests.attacks.attack import Run, attack, succeeded
from tests.attacks.installation import LARGE, Installation
from tests.support import flows
from tests.support.people import People
from tests.support.shop import shop_file
from tests.support.waiting import eventually

FLOW_TYPE = "deep"
NODE, ANY, STARTS = "shop.v1.Node", Any.DESCRIPTOR.full_name, SourceContext.DESCRIPTOR.full_name


@cache
def template() -> Template:
    """A flow type of the demo's agents, gated; its first step answers with a message that holds others of its type."""
    files = FileDescriptorSet.FromString(descriptor_set_for([SourceContext, Any, CustomerNotified]))
    node = {"Node": {"child": NODE, "any": ANY}}
    files.file.append(shop_file(node, imports=("google/protobuf/any.proto",)))
    proto = flows.template(FLOW_TYPE, gated=True).proto
    proto.starts_with[:] = [STARTS]
    proto.steps[0].after[:], proto.steps[0].emits[:], proto.steps[1].after[:] = [STARTS], [NODE], [NODE]
    proto.gates[0].on, proto.gates[0].on_reject = NODE, REJECT_ACTION_FAIL
    return Template.compile(proto, Contracts.from_descriptor_set(files.SerializeToString()))


def nodes(levels: int) -> bytes:
    """A Node within a Node, and so on."""
    body = b""
    for _ in range(levels):
        body = _field(1, body)
    return body


def anys(levels: int) -> bytes:
    """A Node with an Any within an Any, and so on."""
    body = b""
    for _ in range(levels):
        body = Any(type_url=TYPE_URL + ANY, value=body).SerializeToString()
    return _field(2, body)


def _field(number: int, body: bytes) -> bytes:
    """A field of bytes, in the wire's form. Protobuf's own writers stop at a hundred levels."""
    length, rest = bytearray(), len(body)
    while rest > 0x7F:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([number << 3 | 2, *length, rest]) + body


def proposal(flow_id: str, body: bytes) -> Entry:
    """enrichment's proposal with these bytes as its data."""
    entry = flows.enriched(flow_id, flow_type=FLOW_TYPE, kind=Kind.PROPOSAL)
    entry.event.data.CopyFrom(Any(type_url=TYPE_URL + NODE, value=body))
    return Entry(entry.address._replace(message_type=NODE), entry.event)


def nested(number: int, body: bytes) -> Run:
    """Proposes these bytes; every list and every look at a flow has to go on."""

    async def propose(target: Installation) -> str:
        flow_id = f"{number:032x}"
        async with (
            target.people() as people,
            target.bus_as("detection") as detection,
            target.bus_as("enrichment") as enrichment,
        ):
            request = PutTemplateRequest(template=template().proto, descriptors=template().descriptor_set)
            await TemplateServiceStub(people.api.channel).PutTemplate(request, metadata=people.by("olga"))
            begin = flows.start(flow_id, flow_type=FLOW_TYPE, message=SourceContext(file_name="a"))
            for bus, entry in ((detection, begin), (enrichment, proposal(flow_id, body))):
                await allowed(bus, entry)
            await target.until_settled("decide", "track")
            waiting = await target.flow_from_start(people, LARGE)
            await people.approval(waiting)
            return await shown(people, flow_id, waiting)

    return propose


async def allowed(bus: Bus, entry: Entry) -> None:
    """Publish as soon as the broker has the permissions of the new template."""

    async def published() -> bool:
        with suppress(BrokerPermission):
            await bus.publish(entry.address.subject, entry.body)
            return True
        return False

    await eventually(published)


async def shown(people: People, flow_id: str, waiting: str) -> str:
    """The flow is shown, and listed beside one that waits for its votes."""
    by = people.by("vera")
    listed = await people.flows.ListFlows(ListFlowsRequest(scan=True, page_size=500), metadata=by, timeout=10)
    asked = await people.approvals.ListApprovals(
        ListApprovalsRequest(scan=True, page_size=500), metadata=by, timeout=10
    )
    events = await people.events(flow_id)
    flow = await people.flow(flow_id)
    ids = {each.flow_id for each in listed.flows}
    if not {flow_id, waiting} <= ids or waiting not in {each.flow_id for each in asked.approvals} or len(events) < 2:
        succeeded(f"{len(ids)} flows, {len(asked.approvals)} approvals and {len(events)} events are shown")
    void = [event.void_reason for event in events if event.void_reason]
    if not void or flow.approvals:
        succeeded("what nobody can be shown counts")
    return f"everything is listed; the proposal does not count: {void[0]}"


for id_, title, number_, body_ in (
    ("37", "a recursive message 40 deep", 40, nodes(40)),
    ("38", "a recursive message 95 deep", 95, nodes(95)),
    ("39", "an Any within an Any, 90 deep", 90, anys(90)),
    ("40", "an Any within an Any, 400 deep", 400, anys(400)),
    ("41", "an Any within an Any, 9,000 deep", 9_000, anys(9_000)),
):
    attack(id_, f"{title}, breaks ListApprovals, GetApproval and GetFlow", mutant="p5_any_depth_counts")(
        nested(number_, body_)
    )
