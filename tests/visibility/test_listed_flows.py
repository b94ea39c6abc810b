"""Lists of flows from the index equal those of a scan, and show nobody what a scan would not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2
from sqlalchemy import Engine

from handrail.mesh.bus import NatsBus
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.flow_service_pb2 import Flow, GetFlowRequest, GetFlowResponse, ListFlowsRequest, ListFlowsResponse
from tests.support import flows
from tests.support.api import Api, refused
from tests.support.followed import until_covered
from tests.support.indexed import ask, indexed_api, pages
from tests.support.mesh import Mesh, publish
from tests.support.recorded_refunds import record, refund_template

pytestmark = pytest.mark.usefixtures("patient")

METHOD = "FlowService/ListFlows"
FLOWS = 60
AUDITS = 7


@pytest.fixture
async def api(mesh: Mesh, bus: NatsBus, engine: Engine, tmp_path: Path) -> AsyncIterator[Api]:
    """A coordinator with an index of refunds and audits."""
    await mesh.put(refund_template())
    await mesh.put(flows.template("audit"))
    await record(bus, FLOWS, seed=1)
    for number in range(AUDITS):
        await publish(bus, flows.start(f"{number:032x}", flow_type="audit"))
    async with indexed_api(bus, engine, tmp_path) as api:
        yield api


async def listed(api: Api, *grants: str, size: int = 7, **fields: object) -> list[Flow]:
    """The flows of a list, without what they wait for, which a scan does not have."""
    found = await expecting(api, *grants, size=size, **fields)
    for each in found:
        each.ClearField("expectations")
    return found


async def expecting(api: Api, *grants: str, size: int = 7, **fields: object) -> list[Flow]:
    request = ListFlowsRequest(page_size=size, **fields)  # type: ignore[arg-type]
    return await pages(api, METHOD, request, ListFlowsResponse, "flows", *grants)


def ids_of(found: list[Flow]) -> list[str]:
    return [each.flow_id for each in found]


async def test_lists_equal_those_of_a_scan(api: Api) -> None:
    everything = await listed(api, scan=True)
    assert len(everything) == FLOWS + AUDITS
    assert await listed(api) == everything
    statuses = {each.status for each in everything}
    assert len(statuses) > 1
    for status in statuses:
        for flow_type in ("", "refund"):
            scanned = await listed(api, scan=True, status=status, flow_type=flow_type)
            assert await listed(api, status=status, flow_type=flow_type) == scanned


async def test_a_list_says_what_each_flow_waits_for_as_the_flow_itself_does(api: Api) -> None:
    found = await expecting(api)
    for each in found:
        request = GetFlowRequest(flow_id=each.flow_id)
        flow = (await ask(api, "FlowService/GetFlow", request, GetFlowResponse)).flow
        # A retry is the coordinator's to begin: lists tell whose step it is.
        owners = {run.step: run.agent for run in flow.step_runs}
        waits = {(wait.step, owners.get(wait.step, "") if wait.by_agent else "") for wait in flow.expectations}
        waits.discard(("", ""))
        assert {(wait.step, wait.by_agent) for wait in each.expectations} == waits, flow
        assert all(wait.what for wait in each.expectations)
    assert {bool(each.expectations) for each in found} == {True, False}


async def test_filters_and_orders_select_and_sort(api: Api) -> None:
    everything = await listed(api, scan=True)
    assert await listed(api, order_by="started") == everything[::-1]
    completed = await listed(api, filter="status = COMPLETED OR status = COMPENSATED")
    final = {FlowStatus.FLOW_STATUS_COMPLETED, FlowStatus.FLOW_STATUS_COMPENSATED}
    assert completed == [each for each in everything if each.status in final]
    by_update = await listed(api, order_by="updated desc")
    assert by_update == sorted(everything, key=lambda each: each.last_sequence, reverse=True)
    both = await listed(api, filter="flow_type = audit", flow_type="refund")
    assert both == []


async def test_a_condition_of_a_field_can_not_be_typed_away(api: Api) -> None:
    found = await listed(api, filter="flow_type = refund OR flow_type = audit", flow_type="audit")
    assert {each.flow_type for each in found} == {"audit"}
    refusal = await refused(ask(api, METHOD, ListFlowsRequest(filter="a) OR (b", flow_type="audit"), ListFlowsResponse))
    assert refusal.reason == "BAD_FILTER"


async def test_a_caller_sees_counts_and_names_no_more_than_its_flow_types(api: Api) -> None:
    everything = await listed(api, scan=True)
    audits = [each for each in everything if each.flow_type == "audit"]
    assert await listed(api, "reader@audit", size=2) == audits
    page = await ask(api, METHOD, ListFlowsRequest(page_size=2), ListFlowsResponse, "reader@audit")
    assert page.total.items == AUDITS
    for given in (
        "flow_type = refund",
        "NOT flow_type = audit",
        "status = COMPLETED OR status = RUNNING -flow_type = audit",
    ):
        assert await listed(api, "reader@audit", filter=given) == []
    # An attribute that only a template of refunds declares is no field to those who may not read it.
    attribute = ListFlowsRequest(filter="chargeback_id = cb-1")
    refusal = await refused(ask(api, METHOD, attribute, ListFlowsResponse, "reader@audit"))
    assert refusal.reason == "BAD_FILTER"
    assert "chargeback_id" in refusal.status.message
    assert await ask(api, METHOD, attribute, ListFlowsResponse)
    key = ListFlowsRequest(filter="key = some")
    assert not (await ask(api, METHOD, key, ListFlowsResponse, "reader@audit")).flows
    assert not (await ask(api, METHOD, ListFlowsRequest(), ListFlowsResponse, "reader@loan")).flows


async def test_a_wrong_filter_is_refused_with_its_place_and_what_was_expected(api: Api) -> None:
    for given, said in (
        ("status = ", "the filter is wrong at column 10: expected a value"),
        ("stauts = RUNNING", 'at column 1: there is no field "stauts"; did you mean status?'),
    ):
        refusal = await refused(ask(api, METHOD, ListFlowsRequest(filter=given), ListFlowsResponse))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_FILTER")
        assert said in refusal.status.message
        assert refusal.info.metadata["column"] in said
    refusal = await refused(ask(api, METHOD, ListFlowsRequest(order_by="key"), ListFlowsResponse))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_FILTER")


async def test_page_tokens_of_other_lists_are_refused(api: Api) -> None:
    first = await ask(api, METHOD, ListFlowsRequest(page_size=3), ListFlowsResponse)
    scanned = await ask(api, METHOD, ListFlowsRequest(page_size=3, scan=True), ListFlowsResponse)
    token = first.next_page_token
    for wrong, said in (
        (ListFlowsRequest(page_token=token, filter="retrying"), "belongs to another list"),
        (ListFlowsRequest(page_token=token, order_by="updated"), "belongs to another list"),
        (ListFlowsRequest(page_token=token, flow_type="refund"), "belongs to another list"),
        (ListFlowsRequest(page_token=token, scan=True), "the page token"),
        (ListFlowsRequest(page_token=scanned.next_page_token), "the page token"),
        (ListFlowsRequest(page_token="nonsense!"), "was not issued"),
        (ListFlowsRequest(page_token=token[:-3]), "was not issued"),
    ):
        refusal = await refused(ask(api, METHOD, wrong, ListFlowsResponse))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_PAGE_TOKEN")
        assert said in refusal.status.message


async def test_a_page_says_what_it_covers_and_how_long_the_list_is(api: Api, bus: NatsBus, engine: Engine) -> None:
    page = await ask(api, METHOD, ListFlowsRequest(page_size=5), ListFlowsResponse)
    assert page.as_of.sequence == page.flows[0].last_sequence
    assert page.as_of.HasField("time")
    assert page.as_of.messages_behind == 0
    assert (page.total.items, page.total.at_least) == (FLOWS + AUDITS, False)
    await publish(bus, flows.start(f"{99:032x}", flow_type="audit"))
    await until_covered(bus, engine)
    rest = ListFlowsRequest(page_size=5, page_token=page.next_page_token)
    second = await ask(api, METHOD, rest, ListFlowsResponse)
    assert second.total == page.total
    assert second.as_of.sequence == page.as_of.sequence + 1


async def test_a_field_mask_leaves_the_rest_out(api: Api) -> None:
    for scan in (False, True):
        masked = await listed(api, scan=scan, read_mask=FieldMask(paths=["flow_id", "status"]))
        assert masked == [Flow(flow_id=each.flow_id, status=each.status) for each in await listed(api)]
    wrong = ListFlowsRequest(read_mask=FieldMask(paths=["nonsense"]))
    refusal = await refused(ask(api, METHOD, wrong, ListFlowsResponse))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CONTRACT_VIOLATION")
    (violation,) = refusal.detail(error_details_pb2.BadRequest).field_violations
    assert violation.field == "read_mask"


async def test_a_scan_takes_no_filter(api: Api) -> None:
    for wrong in (ListFlowsRequest(scan=True, filter="retrying"), ListFlowsRequest(scan=True, order_by="updated")):
        assert (await refused(ask(api, METHOD, wrong, ListFlowsResponse))).reason == "BAD_FILTER"
