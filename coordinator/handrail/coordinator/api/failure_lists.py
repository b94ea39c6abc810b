"""Failures by what they have in common, from the index."""

from __future__ import annotations

from collections.abc import Iterator

from handrail.coordinator.api import authorization
from handrail.coordinator.api.deadlines import time_left
from handrail.coordinator.api.listing import DEFAULT_PAGE, filters, scope
from handrail.coordinator.api.paging import fitting, page_size
from handrail.coordinator.lists.index import LONGEST, Index
from handrail.index.v1.index_service_pb2 import CountFailuresRequest, FailureCount
from handrail.mesh.streams.catalog import Catalog
from handrail.v1 import flow_service_pb2 as pb


class FailureLists:
    """Lists failures; raises what the index raises."""

    def __init__(self, index: Index, catalog: Catalog) -> None:
        self._index = index
        self._catalog = catalog

    async def failures(self, request: pb.ListFailuresRequest) -> pb.ListFailuresResponse:
        """Returns the most frequent failures of flows that the caller may see."""
        questions, limit = self._index.questions, page_size(request.limit, DEFAULT_PAGE)
        asked = CountFailuresRequest(
            scope=await scope(self._catalog, request.filter),
            filters=filters(request.filter, _conditions(request)),
            since=request.since if request.HasField("since") else None,
            most=limit + 1,
        )
        answer = await self._index.ask(questions.CountFailures, asked, time_left(LONGEST))
        shown = fitting((_summary(each) for each in answer.counts if authorization.lists(each.flow_type)), limit)
        return pb.ListFailuresResponse(failures=shown, more=len(answer.counts) > len(shown), as_of=answer.as_of)


def _conditions(request: pb.ListFailuresRequest) -> Iterator[str]:
    """What the request says of flows, as filters. The contract lets no other characters into a flow type."""
    if request.flow_type:
        yield f"flow_type = {request.flow_type}"


def _summary(count: FailureCount) -> pb.FailureSummary:
    return pb.FailureSummary(
        signature=count.signature,
        flow_type=count.flow_type,
        step=count.step,
        error_class=count.error_class,
        text=count.text,
        count=count.failures,
        flow_id=count.flow_id,
        first_time=count.first_time,
        last_time=count.last_time,
    )
