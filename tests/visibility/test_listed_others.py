"""Approvals, divergences, usage and moves to other versions from the index equal those of a scan."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import Engine

from handrail.mesh.bus import NatsBus
from handrail.mesh.wire.subjects import Kind
from handrail.v1 import flow_service_pb2 as flow_pb
from handrail.v1 import template_service_pb2 as template_pb
from handrail.v1.approval_service_pb2 import (
    ListApprovalsRequest,
    ListApprovalsResponse,
)
from handrail.v1.decision_pb2 import ApprovalRequested
from handrail.v1.flow_service_pb2 import Approval, ApprovalStatus
from tests.support import flows
from tests.support.api import Api, refused
from tests.support.indexed import ask, indexed_api, pages
from tests.support.mesh import Mesh, publish
from tests.support.recorded_refunds import record, refund_template

pytestmark = pytest.mark.usefixtures("patient")

FLOWS = 60
AUDITS = 5
LOANS = 6
DIVERGENCES = "FlowService/ListDivergences"


@pytest.fixture
async def api(mesh: Mesh, bus: NatsBus, engine: Engine, tmp_path: Path) -> AsyncIterator[Api]:
    """A coordinator with an index of refunds, some of which wait for approval, and of audits that diverged."""
    await mesh.put(refund_template())
    await mesh.put(flows.template("audit"))
    await mesh.put(flows.template("audit", 2))
    await record(bus, FLOWS, seed=3)
    await mesh.put(flows.template("loan", gated=True))
    for number in range(LOANS):
        await ask_people(mesh, f"{number:032x}")
    for number in range(AUDITS):
        flow = f"{number:032x}"
        await publish(bus, flows.start(flow, flow_type="audit"), flows.notified(flow, flow_type="audit"))
    async with indexed_api(bus, engine, tmp_path) as api:
        yield api


async def ask_people(mesh: Mesh, flow_id: str) -> None:
    """Stores a flow that waits for approval."""
    proposal = flows.enriched(flow_id, flow_type="loan", kind=Kind.PROPOSAL)
    last = await publish(mesh.bus, flows.start(flow_id, flow_type="loan"), proposal)
    flow = await mesh.store.load("loan", flow_id, at_least=last)
    (asked,) = flow.proposals.values()
    request = ApprovalRequested(proposal_id=asked.recorded.event_id, digest=asked.digest)
    await mesh.store.append(
        flow, flows.decision(request, flow_id=flow_id, flow_type="loan", about="x", based_on=flow.last_sequence)
    )


async def approvals(api: Api, *grants: str, **fields: Any) -> list[Approval]:
    request = ListApprovalsRequest(page_size=4, **fields)
    return await pages(api, "ApprovalService/ListApprovals", request, ListApprovalsResponse, "approvals", *grants)


async def divergences(api: Api, *grants: str, **fields: Any) -> list[flow_pb.ListedDivergence]:
    request = flow_pb.ListDivergencesRequest(page_size=2, **fields)
    return await pages(api, DIVERGENCES, request, flow_pb.ListDivergencesResponse, "divergences", *grants)


async def counts(api: Api, *grants: str, **fields: Any) -> list[flow_pb.DivergenceCount]:
    request = flow_pb.ListDivergencesRequest(count_only=True, **fields)
    return list((await ask(api, DIVERGENCES, request, flow_pb.ListDivergencesResponse, *grants)).counts)


async def usage(api: Api, *grants: str, **fields: Any) -> template_pb.GetTemplateUsageResponse:
    request = template_pb.GetTemplateUsageRequest(**fields)
    answer: template_pb.GetTemplateUsageResponse = await ask(
        api, "TemplateService/GetTemplateUsage", request, template_pb.GetTemplateUsageResponse, *grants
    )
    return answer


async def test_approvals_equal_those_of_a_scan(api: Api) -> None:
    everything = await approvals(api, scan=True, include_closed=True)
    assert {each.status for each in everything} > {ApprovalStatus.APPROVAL_STATUS_PENDING}
    assert len(await approvals(api)) == LOANS
    assert await approvals(api, include_closed=True) == everything
    assert await approvals(api) == await approvals(api, scan=True)
    assert await approvals(api, order_by="requested desc", include_closed=True) == everything[::-1]
    assert await approvals(api, flow_type="audit") == []
    assert await approvals(api, filter="status = WAITING_APPROVAL") == await approvals(api)
    assert await approvals(api, "reader@audit", include_closed=True) == []


async def test_an_approval_without_its_proposal_is_read_from_the_index_alone(api: Api) -> None:
    everything = await approvals(api, include_closed=True)
    mask = FieldMask(paths=["approval_id", "status", "request_time", "expire_time"])
    masked = await approvals(api, include_closed=True, read_mask=mask)
    assert [(a.approval_id, a.status, a.request_time, a.expire_time) for a in everything] == [
        (a.approval_id, a.status, a.request_time, a.expire_time) for a in masked
    ]
    assert not any(each.digest for each in masked)


async def test_divergences_and_their_counts_equal_those_of_a_scan(api: Api) -> None:
    everything = await divergences(api, scan=True)
    assert len(everything) >= AUDITS
    assert await divergences(api) == everything
    assert await divergences(api, order_by="time") == everything[::-1]
    for fields in (
        {"flow_type": "audit"},
        {"agent": "notification"},
        {"agent": "nobody"},
        {"since": everything[1].divergence.time},
    ):
        assert await divergences(api, **fields) == await divergences(api, **fields, scan=True)
        assert await counts(api, **fields) == await counts(api, **fields, scan=True)
    assert await counts(api) == await counts(api, scan=True)
    audits = [each for each in everything if each.flow_type == "audit"]
    assert await divergences(api, filter="flow_type = audit") == audits
    assert await divergences(api, "reader@audit") == audits
    assert sum(each.count for each in await counts(api, "reader@audit")) == len(audits)
    assert await counts(api, "reader@loan") == []


async def test_usage_equals_that_of_a_scan(api: Api) -> None:
    scanned = await usage(api, scan=True)
    indexed = await usage(api)
    assert not scanned.next_page_token
    assert list(indexed.versions) == list(scanned.versions)
    assert list(indexed.agents) == list(scanned.agents)
    assert indexed.flows_examined == sum(each.running_flows for each in scanned.versions)
    assert indexed.as_of.sequence
    audits = await usage(api, "reader@audit")
    assert [(each.name, each.version, each.running_flows) for each in audits.versions] == [
        ("audit", 1, AUDITS),
        ("audit", 2, 0),
    ]
    assert audits.flows_examined == AUDITS
    assert (await usage(api, filter="version = 7")).flows_examined == 0


async def test_moves_to_another_version_equal_those_of_a_scan(api: Api) -> None:
    async def plans(**fields: Any) -> list[flow_pb.MigrationPlan]:
        request = flow_pb.PlanMigrationRequest(flow_type="audit", page_size=2, **fields)
        return await pages(api, "FlowService/PlanMigration", request, flow_pb.PlanMigrationResponse, "flows")

    scanned = await plans(to_version=2, scan=True)
    assert len(scanned) == AUDITS
    assert await plans(to_version=2) == scanned
    assert await plans(to_version=2, from_version=1) == scanned
    assert await plans(to_version=1) == await plans(to_version=2, from_version=9) == []


async def test_an_order_of_another_list_is_refused(api: Api) -> None:
    for method, request, answer in (
        ("ApprovalService/ListApprovals", ListApprovalsRequest(order_by="updated"), ListApprovalsResponse),
        (DIVERGENCES, flow_pb.ListDivergencesRequest(order_by="requested"), flow_pb.ListDivergencesResponse),
    ):
        refusal = await refused(ask(api, method, request, answer))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_FILTER")
        assert "this list is ordered by" in refusal.status.message


async def test_flows_are_counted_by_hour_and_only_those_that_the_caller_may_see(api: Api) -> None:
    async def began(*grants: str, **fields: Any) -> dict[str, int]:
        request = flow_pb.CountFlowsByHourRequest(**fields)
        answer = await ask(api, "FlowService/CountFlowsByHour", request, flow_pb.CountFlowsByHourResponse, *grants)
        found = Counter[str]()
        for each in answer.counts:
            assert each.hour.seconds % 3600 == 0
            found[each.flow_type] += each.began
        return found

    refunds = await pages(
        api, "FlowService/ListFlows", flow_pb.ListFlowsRequest(page_size=100), flow_pb.ListFlowsResponse, "flows"
    )
    lately = datetime.now(UTC) - timedelta(hours=23)
    started = Counter(each.flow_type for each in refunds if each.start_time.ToDatetime(UTC) > lately)
    assert await began() == started
    assert await began(hours=48) == started
    assert set(await began("reader@audit")) == {"audit"}
    assert await began("reader@claim") == {}
    refusal = await refused(began(hours=49))
    assert refusal.reason == "CONTRACT_VIOLATION"
