"""Messages that nobody can read, or that look like the broker's own words, are in nobody's way: people act on the flow,
lists go on, and each is shown as what it is."""

from __future__ import annotations

from typing import Any

import pytest

from handrail.mesh.bus import Bus
from handrail.mesh.streams.quarantine_streams import ensure_quarantines
from handrail.mesh.wire.subjects import Kind
from handrail.v1 import approval_service_pb2 as approvals_pb
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.event_pb2 import RecordedEvent
from handrail.v1.quarantine_service_pb2 import ListQuarantinedRequest, ListQuarantinedResponse
from tests.support import flows
from tests.support.api import Api, bearer
from tests.support.hostile import FORMS, TOKENS
from tests.support.nats_server import NatsServer
from tests.support.raw_client import raw_client
from tests.support.waiting import eventually

ASKED, RUNNING, LATER = "1" * 32, "2" * 32, "3" * 32
STATUS = b"NATS/1.0\r\nStatus: 404\r\nNats-UpTo-Sequence: 1\r\n\r\n"


@pytest.fixture
async def api(api: Api) -> Api:
    """A coordinator that knows the small flow type, with a gate."""
    await api.replica.catalog.put(flows.stored(flows.template(gated=True)))
    await ensure_quarantines(api.replica.bus, api.replica.catalog.all())
    return api


async def ask(api: Api, method: str, request: Any, answer: Any) -> Any:
    token = api.token("olga", "operator", "viewer", "finance")
    return await api.call(method, request, answer, metadata=bearer(token), timeout=30)


async def flow(api: Api, flow_id: str) -> Any:
    return (await ask(api, "FlowService/GetFlow", pb.GetFlowRequest(flow_id=flow_id), pb.GetFlowResponse)).flow


async def events(api: Api, flow_id: str) -> list[RecordedEvent]:
    request = pb.ListFlowEventsRequest(flow_id=flow_id, page_size=500)
    page = await ask(api, "FlowService/ListFlowEvents", request, pb.ListFlowEventsResponse)
    return list(page.events)


@pytest.fixture
async def hostile(api: Api, bus: Bus, nats_server: NatsServer) -> int:
    """Three flows, each event of theirs with headers like the broker's; in two of them all that an agent can do to
    their readers. Returns how many messages of each flow can't be read.
    """
    async with raw_client(nats_server.url) as agent:
        for entry in (
            flows.start(ASKED),
            flows.enriched(ASKED, kind=Kind.PROPOSAL),
            flows.start(RUNNING),
            flows.enriched(RUNNING, kind=Kind.PROPOSAL),
            flows.start(LATER),
        ):
            await agent.publish(entry.address.subject, entry.body, headers=STATUS)
        for flow_id in (ASKED, RUNNING):
            subject = f"flow.refund.{flow_id}.divergence.enrichment"
            for number, headers in enumerate(FORMS.values()):
                await agent.publish(f"{subject}.{number:032x}.handrail.v1.Divergence", b"", headers=headers)
            for token in TOKENS.values():
                await agent.publish(b"%b.%b.handrail.v1.Divergence" % (subject.encode(), token), b"odd")
    return len(FORMS) + len(TOKENS)


async def test_people_act_on_a_flow_with_messages_that_nobody_can_read(api: Api, bus: Bus, hostile: int) -> None:
    async def both_ask() -> bool:
        return all([(await flow(api, each)).approvals for each in (ASKED, RUNNING)])

    await eventually(both_ask)
    (approval,) = (await flow(api, ASKED)).approvals
    vote = approvals_pb.ApproveProposalRequest(approval_id=approval.approval_id, digest=approval.digest)
    await ask(api, "ApprovalService/ApproveProposal", vote, approvals_pb.ApproveProposalResponse)

    async def released() -> bool:
        return any(event.type == flows.ENRICHED and event.agent == "enrichment" for event in await events(api, ASKED))

    await eventually(released)
    compensate = pb.CompensateFlowRequest(flow_id=ASKED, reason="test")
    await ask(api, "FlowService/CompensateFlow", compensate, pb.CompensateFlowResponse)
    await ask(api, "FlowService/CancelFlow", pb.CancelFlowRequest(flow_id=RUNNING, reason="x"), pb.CancelFlowResponse)

    # Nobody answers for the step that the release set off: undoing waits for it.
    async def both() -> list[FlowStatus.ValueType]:
        return [(await flow(api, each)).status for each in (ASKED, RUNNING)]

    taken_up = [FlowStatus.FLOW_STATUS_COMPENSATING, FlowStatus.FLOW_STATUS_CANCELLED]
    assert await eventually(both, lambda found: found == taken_up)


async def test_every_list_goes_on_and_shows_what_can_not_be_read(api: Api, bus: Bus, hostile: int) -> None:
    async def asked() -> bool:
        request = approvals_pb.ListApprovalsRequest(scan=True, page_size=10)
        found = await ask(api, "ApprovalService/ListApprovals", request, approvals_pb.ListApprovalsResponse)
        return {each.flow_id for each in found.approvals} == {ASKED, RUNNING}

    await eventually(asked)
    listed = await ask(api, "FlowService/ListFlows", pb.ListFlowsRequest(scan=True, page_size=10), pb.ListFlowsResponse)
    assert [each.flow_id for each in listed.flows] == [LATER, RUNNING, ASKED]
    await ask(api, "FlowService/ListDivergences", pb.ListDivergencesRequest(scan=True), pb.ListDivergencesResponse)

    shown = await events(api, ASKED)
    bad = [event for event in shown if not event.HasField("event")]
    assert len(bad) == hostile
    assert all(event.void_reason and event.HasField("time") for event in bad)
    assert [event.sequence for event in shown] == sorted(event.sequence for event in shown)
    watched = await watch(api, ASKED, last=shown[-1].sequence)
    assert watched == [event.sequence for event in shown]

    async def all_quarantined() -> bool:
        request = ListQuarantinedRequest(page_size=500)
        kept = await ask(api, "QuarantineService/ListQuarantined", request, ListQuarantinedResponse)
        return len({each.message.stream_sequence for each in kept.messages}) == 2 * hostile

    await eventually(all_quarantined)


async def watch(api: Api, flow_id: str, *, last: int) -> list[int]:
    rpc = api.channel.unary_stream(
        "/handrail.v1.FlowService/WatchFlow",
        request_serializer=pb.WatchFlowRequest.SerializeToString,
        response_deserializer=pb.WatchFlowResponse.FromString,
    )
    call = rpc(pb.WatchFlowRequest(flow_id=flow_id), metadata=bearer(api.token("vera")), timeout=30)
    seen: list[int] = []
    while not seen or seen[-1] < last:
        response: Any = await call.read()
        if response.HasField("event"):
            seen.append(response.sequence)
    call.cancel()
    return seen


async def test_a_flow_is_found_whatever_another_type_holds_under_its_id(api: Api, bus: Bus, hostile: int) -> None:
    await api.replica.catalog.put(flows.stored(flows.template("loan")))
    before = (await flow(api, LATER)).flow_type
    begun = flows.start(LATER, flow_type="loan")
    for address in (begun.address._replace(agent="enrichment"), begun.address._replace(message_type="x.v1.Other")):
        await bus.publish(address.subject, begun.body)
    assert (await flow(api, LATER)).flow_type == before == "refund"
