"""The route that completes filters: field names, and the values that the person's templates have."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from handrail.console.agents.page import NO_FLOW
from handrail.console.flow.reading import flow_type
from handrail.console.flows.words import words
from handrail.console.types.reading import listed
from handrail.console.web.asking import part
from handrail.console.web.console import console_of, session_of
from handrail.v1.template_service_pb2 import GetTemplateUsageRequest

_MOST = 16
"""So many templates are read for their steps and attributes."""


async def completion(request: Request) -> Response:
    """GET /completion."""
    session, console = session_of(request), console_of(request)
    if session is None:
        return JSONResponse({}, 401)
    to = console.coordinator
    call = to.call(to.templates.GetTemplateUsage, GetTemplateUsageRequest(filter=NO_FLOW), token=session.token)
    found, usage = await asyncio.gather(part(listed(console, session)), part(call))
    active = [(each.name, each.version) for each in found.answer or () if each.active][:_MOST]
    types = await asyncio.gather(*(flow_type(console, session, *each) for each in active))
    agents = [each.agent for each in usage.answer.agents] if usage.answer else []
    return JSONResponse(words([each.template for each in types if each], agents))
