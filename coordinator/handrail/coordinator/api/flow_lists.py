"""Lists of flows: from the index, or by a scan of the stream."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from handrail.coordinator.api import authorization
from handrail.coordinator.api.deadlines import time_left
from handrail.coordinator.api.listing import (
    DEFAULT_PAGE,
    RUNNING,
    filters,
    gathered,
    listed,
    page,
    query,
    require_plain,
    scope,
)
from handrail.coordinator.api.paging import page_of, page_size, page_token, sequence_of
from handrail.coordinator.api.read_mask import ReadMask
from handrail.coordinator.api.template_lookup import TemplateFinder
from handrail.coordinator.api.views import listed_flow, migration_plan
from handrail.coordinator.lists.flows import Scanner, readable
from handrail.coordinator.lists.index import LONGEST, Index
from handrail.index.v1.index_service_pb2 import CountFlowsByHourRequest as HourQuestion
from handrail.index.v1.index_service_pb2 import CountFlowsRequest as CountQuestion
from handrail.index.v1.index_service_pb2 import FlowRow, Query
from handrail.index.v1.index_service_pb2 import ListFlowsRequest as Question
from handrail.mesh.flow import Flow
from handrail.mesh.fold import is_final
from handrail.mesh.streams.catalog import Catalog
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.decision_pb2 import FlowStatus

_HOURS = 24


class FlowLists:
    """Lists flows. Every list also raises what the index or reading the stream raises."""

    def __init__(self, index: Index, scanner: Scanner, catalog: Catalog) -> None:
        self._index = index
        self._scanner = scanner
        self._catalog = catalog
        self._templates = TemplateFinder(catalog)

    async def flows(self, request: pb.ListFlowsRequest) -> pb.ListFlowsResponse:
        """Returns one page of flows."""
        mask = ReadMask(request, pb.Flow)
        if request.scan:
            return await self._scanned(request, mask)
        questions = self._index.questions
        asked = Question(query=await query(request, self._catalog, _conditions(request)))
        answer = await self._index.ask(questions.ListFlows, asked, time_left(LONGEST))

        def view(row: FlowRow) -> pb.Flow:
            return mask.of(row.flow)

        flows, token = page(listed(answer.rows, _type_of), answer.page, view)
        covered = answer.page
        return pb.ListFlowsResponse(flows=flows, next_page_token=token, as_of=covered.as_of, total=covered.total)

    async def _scanned(self, request: pb.ListFlowsRequest, mask: ReadMask[pb.Flow]) -> pb.ListFlowsResponse:
        require_plain(request.filter, request.order_by)
        listing = ("flows", request.flow_type, request.status)
        found = await self._scanner.flows(
            flow_type=request.flow_type,
            status=request.status,
            cursor=sequence_of(request.page_token, *listing),
            size=page_size(request.page_size, DEFAULT_PAGE),
            covers=authorization.lists,
        )
        flows, cursor = page_of(found, lambda item: mask.of(listed_flow(item)))
        return pb.ListFlowsResponse(flows=flows, next_page_token=page_token(cursor, *listing))

    async def counts(self, request: pb.CountFlowsRequest) -> pb.CountFlowsResponse:
        """Returns the counts of flows by type and status."""
        questions = self._index.questions
        asked = CountQuestion(
            scope=await scope(self._catalog, request.filter), filters=filters(request.filter), by_status_only=True
        )
        answer = await self._index.ask(questions.CountFlows, asked, time_left(LONGEST))
        counts = [
            pb.FlowCount(flow_type=each.flow_type, status=each.status, flows=each.flows)
            for each in answer.counts
            if authorization.lists(each.flow_type)
        ]
        return pb.CountFlowsResponse(counts=counts, as_of=answer.as_of)

    async def hours(self, request: pb.CountFlowsByHourRequest) -> pb.CountFlowsByHourResponse:
        """Returns the counts of flows by type and hour."""
        questions = self._index.questions
        asked = HourQuestion(scope=await scope(self._catalog, ""), hours=request.hours or _HOURS)
        answer = await self._index.ask(questions.CountFlowsByHour, asked, time_left(LONGEST))
        counts = [each for each in answer.counts if authorization.lists(each.flow_type)]
        return pb.CountFlowsByHourResponse(counts=counts, as_of=answer.as_of)

    async def migration(self, request: pb.PlanMigrationRequest) -> pb.PlanMigrationResponse:
        """Returns one page of running flows, and whether each can move."""
        if request.scan:
            return await self._scanned_migration(request)
        target = await self._templates.version(request.flow_type, request.to_version)
        questions = self._index.questions
        asked = Question(
            query=Query(
                scope=await scope(self._catalog, ""),
                filters=[*_elsewhere(request), RUNNING],
                page_size=page_size(request.page_size, DEFAULT_PAGE),
                page_token=request.page_token,
            )
        )
        answer = await self._index.ask(questions.ListFlows, asked, time_left(LONGEST))
        flows = await gathered(
            self._scanner.flow(row.flow.flow_type, row.flow.flow_id, row.flow.last_sequence)
            for row in listed(answer.rows, _type_of)
        )
        plans = [
            migration_plan(flow, target) for flow in flows if isinstance(flow, Flow) and _runs_elsewhere(request, flow)
        ]
        return pb.PlanMigrationResponse(
            flows=plans, next_page_token=answer.page.next_page_token, as_of=answer.page.as_of
        )

    async def _scanned_migration(self, request: pb.PlanMigrationRequest) -> pb.PlanMigrationResponse:
        listing = ("migration", request.flow_type, request.from_version, request.to_version)
        target = await self._templates.version(request.flow_type, request.to_version)

        found = await self._scanner.flows(
            flow_type=request.flow_type,
            where=partial(_runs_elsewhere, request),
            cursor=sequence_of(request.page_token, *listing),
            size=page_size(request.page_size, DEFAULT_PAGE),
        )
        flows, cursor = page_of(readable(found), lambda flow: migration_plan(flow, target))
        return pb.PlanMigrationResponse(flows=flows, next_page_token=page_token(cursor, *listing))


def _type_of(row: FlowRow) -> str:
    return row.flow.flow_type


def _runs_elsewhere(request: pb.PlanMigrationRequest, flow: Flow) -> bool:
    version = flow.template.version
    return version != request.to_version and request.from_version in (0, version) and not is_final(flow)


def _elsewhere(request: pb.PlanMigrationRequest) -> Iterator[str]:
    """The filters for flows that run under another version than the wanted one."""
    yield f"flow_type = {request.flow_type}"
    yield f"version != {request.to_version}"
    if request.from_version:
        yield f"version = {request.from_version}"


def _conditions(request: pb.ListFlowsRequest) -> Iterator[str]:
    """What the fields of a request say, as filters. The contract lets no other characters into a flow type."""
    if request.flow_type:
        yield f"flow_type = {request.flow_type}"
    if request.status:
        yield f"status = {FlowStatus.Name(request.status).removeprefix('FLOW_STATUS_')}"
