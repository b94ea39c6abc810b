"""Lists and counts of divergences: from the index, or by a scan of the stream."""

from __future__ import annotations

from collections.abc import Iterator

from handrail.coordinator.api import authorization
from handrail.coordinator.api.deadlines import time_left
from handrail.coordinator.api.listing import DEFAULT_PAGE, filters, listed, page, query, require_plain, scope
from handrail.coordinator.api.paging import page_of, page_size, page_token, sequence_of
from handrail.coordinator.api.read_mask import ReadMask
from handrail.coordinator.api.views import divergence_counts, divergence_view
from handrail.coordinator.lists.divergences import EXAMINED, DivergenceScanner, Seen
from handrail.coordinator.lists.index import LONGEST, Index
from handrail.index.v1 import index_service_pb2 as index
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.wire.envelope import from_timestamp
from handrail.v1 import flow_service_pb2 as pb


class DivergenceLists:
    """Lists divergences. Every list also raises what the index or reading the stream raises."""

    def __init__(self, index: Index, scanner: DivergenceScanner, catalog: Catalog) -> None:
        self._index = index
        self._scanner = scanner
        self._catalog = catalog

    async def divergences(self, request: pb.ListDivergencesRequest) -> pb.ListDivergencesResponse:
        """Returns one page of divergences, or their counts."""
        mask = ReadMask(request, pb.ListedDivergence)
        if request.scan:
            return await self._scanned(request, mask)
        if request.count_only:
            return await self._counted(request)
        questions = self._index.questions
        asked = index.ListDivergencesRequest(
            query=await query(request, self._catalog, _conditions(request)), condition=_condition(request)
        )
        answer = await self._index.ask(questions.ListDivergences, asked, time_left(LONGEST))

        def view(row: index.DivergenceRow) -> pb.ListedDivergence:
            return mask.of(row.divergence)

        divergences, token = page(listed(answer.rows, _type_of), answer.page, view)
        return pb.ListDivergencesResponse(
            divergences=divergences, next_page_token=token, as_of=answer.page.as_of, total=answer.page.total
        )

    async def _counted(self, request: pb.ListDivergencesRequest) -> pb.ListDivergencesResponse:
        questions = self._index.questions
        asked = index.CountDivergencesRequest(
            scope=await scope(self._catalog, request.filter),
            filters=filters(request.filter, _conditions(request)),
            condition=_condition(request),
        )
        answer = await self._index.ask(questions.CountDivergences, asked, time_left(LONGEST))
        return pb.ListDivergencesResponse(
            counts=[each for each in answer.counts if authorization.lists(each.flow_type)], as_of=answer.as_of
        )

    async def _scanned(
        self, request: pb.ListDivergencesRequest, mask: ReadMask[pb.ListedDivergence]
    ) -> pb.ListDivergencesResponse:
        require_plain(request.filter, request.order_by)
        since = from_timestamp(request.since) if request.HasField("since") else None
        listing = ("divergences", request.flow_type, request.agent, since, request.count_only)
        found = await self._scanner.page(
            flow_type=request.flow_type,
            agent=request.agent,
            since=since,
            cursor=sequence_of(request.page_token, *listing),
            size=EXAMINED if request.count_only else page_size(request.page_size, DEFAULT_PAGE),
            covers=authorization.lists,
        )
        if request.count_only:
            counts = divergence_counts(_listed(row.item) for row in found.rows)
            return pb.ListDivergencesResponse(counts=counts, next_page_token=page_token(found.next_cursor, *listing))
        divergences, cursor = page_of(found, lambda seen: mask.of(_listed(seen)))
        return pb.ListDivergencesResponse(divergences=divergences, next_page_token=page_token(cursor, *listing))


def _conditions(request: pb.ListDivergencesRequest) -> Iterator[str]:
    """What the request says of flows, as filters. The contract lets no other characters into a flow type."""
    if request.flow_type:
        yield f"flow_type = {request.flow_type}"


def _type_of(row: index.DivergenceRow) -> str:
    return row.divergence.flow_type


def _condition(request: pb.ListDivergencesRequest) -> index.DivergenceCondition:
    return index.DivergenceCondition(agent=request.agent, since=request.since if request.HasField("since") else None)


def _listed(seen: Seen) -> pb.ListedDivergence:
    return pb.ListedDivergence(
        flow_id=seen.flow_id, flow_type=seen.flow_type, divergence=divergence_view(seen.divergence)
    )
