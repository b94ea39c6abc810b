"""The route of the agents."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

from handrail.console.agents.rows import agents, divergences, words
from handrail.console.web.asking import listed, part
from handrail.console.web.console import console_of, now, signed_in
from handrail.console.web.pages import page
from handrail.mesh.wire.envelope import timestamp
from handrail.v1.flow_service_pb2 import ListDivergencesRequest
from handrail.v1.template_service_pb2 import GetTemplateUsageRequest, GetTemplateUsageResponse

NO_FLOW = "flow_id = none"
"""Agents are listed with counts of flows: this filter counts none."""

LATELY = timedelta(days=1)
"""Divergences of so much time are counted."""


async def agents_page(request: Request) -> Response:
    """GET /agents: each with what waits for it."""
    session, console = signed_in(request), console_of(request)
    to, token = console.coordinator, session.token
    since = timestamp(now() - LATELY)
    usage = to.call(to.templates.GetTemplateUsage, GetTemplateUsageRequest(filter=NO_FLOW), token=token)
    counted = to.call(to.flows.ListDivergences, ListDivergencesRequest(since=since, count_only=True), token=token)
    (found, problem, status), diverged = await asyncio.gather(listed(usage, GetTemplateUsageResponse()), part(counted))
    values: dict[str, object] = {
        "rows": agents(found.agents),
        "words": words(found.agents),
        "now": now(),
        "divergences": divergences(diverged.answer.counts) if diverged.answer else None,
        "problem": problem,
    }
    return page(request, "agents.html", values, status=status)
