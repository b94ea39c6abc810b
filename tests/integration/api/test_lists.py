"""Lists over the API: flows newest first, approvals oldest first, quarantined messages without their bytes."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from handrail.mesh.bus import Bus
from handrail.mesh.streams.quarantine import Quarantine
from handrail.mesh.streams.quarantine_streams import ensure_quarantines
from handrail.v1 import quarantine_service_pb2 as quarantine_pb
from handrail.v1.approval_service_pb2 import ListApprovalsRequest, ListApprovalsResponse
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import DivergenceKind
from handrail.v1.flow_service_pb2 import (
    GetFlowRequest,
    GetFlowResponse,
    ListDivergencesRequest,
    ListDivergencesResponse,
    ListFlowEventsRequest,
    ListFlowEventsResponse,
    ListFlowsRequest,
    ListFlowsResponse,
)
from tests.support import flows
from tests.support.api import Api, bearer, refused
from tests.support.mesh import publish


@pytest.fixture
async def api(api: Api) -> Api:
    """A coordinator that knows the small flow type of these tests, gated as version 2 of another name."""
    await api.replica.catalog.put(flows.stored(flows.template()))
    await ensure_quarantines(api.replica.bus, api.replica.catalog.all())
    return api


async def ask(api: Api, method: str, request: Any, answer: Any) -> Any:
    return await api.call(method, request, answer, metadata=bearer(api.token("vera", "viewer")))


async def all_pages(api: Api, method: str, request: Any, answer: Any, field: str) -> list[Any]:
    found: list[Any] = []
    while True:
        page = await ask(api, method, request, answer)
        assert len(getattr(page, field)) <= request.page_size
        found += getattr(page, field)
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def flow_id(number: int) -> str:
    return f"{number:032x}"


async def test_flows_are_listed_newest_first_without_their_parts(api: Api, bus: Bus) -> None:
    for number in range(5):
        await publish(bus, flows.start(flow_id(number)))
    request = ListFlowsRequest(scan=True, page_size=2)
    listed = await all_pages(api, "FlowService/ListFlows", request, ListFlowsResponse, "flows")
    assert [each.flow_id for each in listed] == [flow_id(number) for number in (4, 3, 2, 1, 0)]
    assert {(each.flow_type, each.status, len(each.step_runs)) for each in listed} == {
        ("refund", FlowStatus.FLOW_STATUS_RUNNING, 0)
    }


async def test_flows_are_listed_by_type_and_status(api: Api, bus: Bus) -> None:
    await publish(bus, flows.start(flow_id(1)), flows.enriched(flow_id(1)), flows.notified(flow_id(1)))
    await publish(bus, flows.start(flow_id(2)))
    completed = ListFlowsRequest(scan=True, status=FlowStatus.FLOW_STATUS_COMPLETED, page_size=10)
    listed = await all_pages(api, "FlowService/ListFlows", completed, ListFlowsResponse, "flows")
    assert [each.flow_id for each in listed] == [flow_id(1)]
    other = ListFlowsRequest(scan=True, flow_type="loan", page_size=10)
    assert await all_pages(api, "FlowService/ListFlows", other, ListFlowsResponse, "flows") == []


async def test_a_token_of_another_listing_is_refused(api: Api, bus: Bus) -> None:
    await publish(bus, flows.start(flow_id(1)), flows.start(flow_id(2)))
    page = await ask(api, "FlowService/ListFlows", ListFlowsRequest(scan=True, page_size=1), ListFlowsResponse)
    for request in (
        ListFlowsRequest(scan=True, page_token=page.next_page_token, flow_type="refund"),
        ListFlowsRequest(scan=True, page_token=page.next_page_token, status=FlowStatus.FLOW_STATUS_FAILED),
    ):
        refusal = await refused(ask(api, "FlowService/ListFlows", request, ListFlowsResponse))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_PAGE_TOKEN")


async def test_events_are_listed_in_stream_order_page_by_page(api: Api, bus: Bus) -> None:
    stored = [await publish(bus, entry) for entry in (flows.start(), flows.enriched(), flows.notified())]
    request = ListFlowEventsRequest(flow_id=flows.FLOW_ID, page_size=2)
    listed = await all_pages(api, "FlowService/ListFlowEvents", request, ListFlowEventsResponse, "events")
    assert [each.sequence for each in listed] == stored


async def test_an_unknown_flow_is_named_as_a_resource(api: Api) -> None:
    refusal = await refused(ask(api, "FlowService/GetFlow", GetFlowRequest(flow_id=flow_id(9)), GetFlowResponse))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "FLOW_NOT_FOUND")
    resource = refusal.detail(error_details_pb2.ResourceInfo)
    assert (resource.resource_type, resource.resource_name) == ("flow", flow_id(9))


@pytest.mark.parametrize("wrong", ["", "abc", "a.b", " " * 32, "G" * 32, "0" * 33, "x" * 10_000, "*", ">"])
async def test_an_id_that_is_none_is_refused_with_the_field(api: Api, wrong: str) -> None:
    refusal = await refused(ask(api, "FlowService/GetFlow", GetFlowRequest(flow_id=wrong), GetFlowResponse))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CONTRACT_VIOLATION")
    (violation,) = refusal.detail(error_details_pb2.BadRequest).field_violations
    assert violation.field == "flow_id"


async def test_no_approvals_is_an_empty_page(api: Api) -> None:
    answer = await ask(api, "ApprovalService/ListApprovals", ListApprovalsRequest(scan=True), ListApprovalsResponse)
    assert answer == ListApprovalsResponse()


async def keep(api: Api, number: int, body: bytes = b"\x00broken", *, reporter: str = "notification") -> None:
    await Quarantine(api.replica.bus, api.replica.catalog, reporter=reporter).put(
        subject=f"flow.refund.{flow_id(number)}.event.enrichment.{flow_id(number)}.{flows.ENRICHED}",
        body=body,
        sequence=7,
        reason=ErrorReason.ERROR_REASON_MALFORMED,
        detail="it is no event",
    )


async def test_quarantined_messages_are_listed_without_and_shown_with_their_bytes(api: Api) -> None:
    for number in range(3):
        await keep(api, number)
    await keep(api, 3, reporter="coordinator")
    request = quarantine_pb.ListQuarantinedRequest(page_size=2)
    answer = quarantine_pb.ListQuarantinedResponse
    listed = await all_pages(api, "QuarantineService/ListQuarantined", request, answer, "messages")
    assert [(each.flow_id, each.message.body) for each in listed] == [(flow_id(n), b"") for n in (3, 0, 1, 2)]
    assert [each.agent for each in listed] == ["enrichment", *["notification"] * 3]
    assert [each.message.reporter for each in listed] == ["coordinator", *["notification"] * 3]
    shown = await ask(
        api,
        "QuarantineService/GetQuarantined",
        quarantine_pb.GetQuarantinedRequest(agent="notification", quarantine_id=listed[2].quarantine_id),
        quarantine_pb.GetQuarantinedResponse,
    )
    assert (shown.message.flow_id, shown.message.message.body) == (flow_id(1), b"\x00broken")


async def test_large_quarantined_messages_do_not_make_a_page_too_large(api: Api) -> None:
    for number in range(8):
        await keep(api, number, body=b"x" * 900_000, reporter="notification" if number % 2 else "enrichment")
    request = quarantine_pb.ListQuarantinedRequest(page_size=500)
    answer = quarantine_pb.ListQuarantinedResponse
    listed = await all_pages(api, "QuarantineService/ListQuarantined", request, answer, "messages")
    assert len(listed) == 8


@pytest.mark.parametrize("agent", ["", "notification", "nobody"])
async def test_an_unknown_quarantined_message_is_refused(api: Api, agent: str) -> None:
    request = quarantine_pb.GetQuarantinedRequest(agent=agent, quarantine_id=99)
    call = ask(api, "QuarantineService/GetQuarantined", request, quarantine_pb.GetQuarantinedResponse)
    assert (await refused(call)).reason == "QUARANTINE_NOT_FOUND"


async def test_divergences_are_listed_with_their_flow_and_counted(api: Api, bus: Bus) -> None:
    for number in (1, 2, 3):
        await publish(bus, flows.start(flow_id(number)), flows.notified(flow_id(number)))
    method = "FlowService/ListDivergences"
    request = ListDivergencesRequest(scan=True, flow_type="refund", page_size=2)
    listed = await all_pages(api, method, request, ListDivergencesResponse, "divergences")
    assert [each.flow_id for each in listed] == [flow_id(number) for number in (3, 2, 1)]
    assert {(each.divergence.agent, each.divergence.template_version) for each in listed} == {("notification", 1)}
    assert all(each.divergence.HasField("time") for each in listed)
    page = await ask(api, method, ListDivergencesRequest(scan=True, count_only=True), ListDivergencesResponse)
    (count,) = page.counts
    assert not page.divergences
    assert (count.agent, count.template_version, count.count) == ("notification", 1, 3)
    assert count.kind == DivergenceKind.DIVERGENCE_KIND_NOT_TRIGGERED
    assert count.example == listed[0]
    request = ListDivergencesRequest(scan=True, flow_type="audit", page_token=page.next_page_token)
    assert not (await ask(api, method, request, ListDivergencesResponse)).divergences
