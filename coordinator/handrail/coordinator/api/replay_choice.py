"""The flows of a replay, as the index chooses them."""

from __future__ import annotations

from collections.abc import Iterator

from handrail.coordinator.api.listing import filters, scope
from handrail.coordinator.lists.index import Index
from handrail.coordinator.replay.chosen import Choose, Names
from handrail.index.v1.index_service_pb2 import ListFlowsRequest, Query
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.wire.envelope import from_timestamp
from handrail.v1.template_service_pb2 import ReplayPolicyRequest

_PAGE = 500


async def choice(index: Index, catalog: Catalog, request: ReplayPolicyRequest) -> Choose | None:
    """Returns how to choose the flows of a replay; None if the request has no filter. Raises NO_INDEX."""
    if not request.filter:
        return None
    questions = index.questions
    query = Query(
        scope=await scope(catalog, request.filter),
        filters=filters(request.filter, _conditions(request)),
        page_size=_PAGE,
    )

    async def choose(token: str) -> Names:
        query.page_token = token
        answer = await index.ask(questions.ListFlows, ListFlowsRequest(query=query))
        ids = [row.flow.flow_id for row in answer.rows]
        return Names(ids, answer.page.next_page_token, answer.page.total.items)

    return choose


def _conditions(request: ReplayPolicyRequest) -> Iterator[str]:
    """What the request says of flows, as filters. The contract of a template lets no other characters into its name."""
    yield f"flow_type = {request.template.name}"
    if request.HasField("since"):
        yield f"started >= {from_timestamp(request.since).isoformat()}"
    if request.HasField("until"):
        yield f"started < {from_timestamp(request.until).isoformat()}"
