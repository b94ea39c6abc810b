"""Which stored versions flows run on: from the index, or by a scan of the stream."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from handrail.coordinator.api import authorization
from handrail.coordinator.api.agent_reports import AgentReports
from handrail.coordinator.api.agent_view import agent_usage
from handrail.coordinator.api.deadlines import time_left
from handrail.coordinator.api.listing import RUNNING, filters, require_plain, scope
from handrail.coordinator.api.paging import MAX_PAGE_SIZE, page_size, page_token, sequence_of
from handrail.coordinator.api.views import counted_usages, version_usages
from handrail.coordinator.lists.flows import Scanner, readable
from handrail.coordinator.lists.index import LONGEST, Index
from handrail.index.v1.index_service_pb2 import CountFlowsRequest as Question
from handrail.mesh.bus import Bus
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import Durable, read_durables
from handrail.mesh.template import Template
from handrail.v1 import template_service_pb2 as pb
from handrail.v1.error_reason_pb2 import ErrorReason


class UsageLists:
    """Counts the running flows of each version. Every call also raises what the index or reading the stream raises."""

    def __init__(self, index: Index, scanner: Scanner, catalog: Catalog, bus: Bus) -> None:
        self._index = index
        self._scanner = scanner
        self._catalog = catalog
        self._bus = bus
        self._reports = AgentReports(bus)

    async def usage(self, request: pb.GetTemplateUsageRequest) -> pb.GetTemplateUsageResponse:
        """Returns all counts; of a scan, those of one page of flows. The first page also lists the agents."""
        if request.scan:
            return await self._scanned(request)
        if request.page_token:
            text = "there is one page, unless the request has scan; leave the page token out"
            raise HandrailError(ErrorReason.ERROR_REASON_BAD_PAGE_TOKEN, text)
        questions = self._index.questions
        named = [f"flow_type = {request.name}"] if request.name else []
        asked = Question(
            scope=await scope(self._catalog, request.filter), filters=filters(request.filter, [*named, RUNNING])
        )
        answer = await self._index.ask(questions.CountFlows, asked, time_left(LONGEST))
        templates = self._listed(request.name)
        return pb.GetTemplateUsageResponse(
            versions=counted_usages(templates, answer.counts, active=self._active()),
            agents=await self._agents(templates),
            flows_examined=sum(each.flows for each in answer.counts),
            as_of=answer.as_of,
        )

    async def _scanned(self, request: pb.GetTemplateUsageRequest) -> pb.GetTemplateUsageResponse:
        require_plain(request.filter)
        listing = ("usage", request.name)
        cursor = sequence_of(request.page_token, *listing)
        size = page_size(request.page_size, MAX_PAGE_SIZE)
        found = await self._scanner.flows(flow_type=request.name, cursor=cursor, size=size, covers=authorization.lists)
        templates = self._listed(request.name)
        flows = (row.item for row in readable(found).rows)
        return pb.GetTemplateUsageResponse(
            versions=version_usages(templates, flows, active=self._active(), now=datetime.now(UTC)),
            agents=[] if cursor else await self._agents(templates),
            flows_examined=len(found.rows),
            next_page_token=page_token(found.next_cursor, *listing),
        )

    def _active(self) -> frozenset[tuple[str, int]]:
        return frozenset((name, self._catalog.active_version(name)) for name in self._catalog.names())

    async def _agents(self, templates: Sequence[Template]) -> list[pb.AgentUsage]:
        durables: dict[str, list[Durable]] = {}
        for each in await read_durables(self._bus, templates):
            if each.agent:
                durables.setdefault(each.agent, []).append(each)
        reports = await self._reports.of(durables)
        stored = self._catalog.all()
        return [
            agent_usage(
                found,
                reports[agent].oldest if any(each.pending or each.ack_pending for each in found) else None,
                reports[agent].workers,
                stored,
                authorization.lists,
            )
            for agent, found in durables.items()
        ]

    def _listed(self, name: str) -> Sequence[Template]:
        """Returns the known versions that the caller may read: of this flow type, or all if the name is empty."""
        return [each for each in self._catalog.all() if name in ("", each.name) and authorization.lists(each.name)]
