"""The route of the quarantine."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from handrail.console.quarantine import rows
from handrail.console.web.asking import listed
from handrail.console.web.console import Console, console_of, now, signed_in
from handrail.console.web.pages import page
from handrail.console.web.sessions import Session
from handrail.v1 import quarantine_service_pb2 as pb

_ROWS = 25
_AGENT = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_MESSAGE = re.compile(r"(?:([a-z][a-z0-9_-]{0,62})/)?([1-9][0-9]{0,17})")


async def quarantine(request: Request) -> Response:
    """GET /quarantine?agent=AGENT&message=ID: what broke its contract, and one message with its bytes."""
    session, console = signed_in(request), console_of(request)
    query = request.query_params
    agent = query.get("agent", "").strip()
    asked = pb.ListQuarantinedRequest(page_size=_ROWS, page_token=query.get("page", "")[:1_024])
    if _AGENT.fullmatch(agent):
        asked.agent = agent
    call = console.coordinator.call(console.coordinator.quarantine.ListQuarantined, asked, token=session.token)
    found, problem, status = await listed(call, pb.ListQuarantinedResponse())
    shown, chosen = [rows.row(each) for each in found.messages], query.get("message", "")
    values: dict[str, object] = {
        "agent": asked.agent,
        "problem": problem,
        "rows": [(each, _address(agent=asked.agent, page=asked.page_token, message=each.id)) for each in shown],
        "detail": await _detail(console, session, chosen) if chosen else None,
        "back": _address(agent=asked.agent, page=asked.page_token),
        "first": _address(agent=asked.agent) if asked.page_token else "",
        "next": _address(agent=asked.agent, page=found.next_page_token) if found.next_page_token else "",
        "now": now(),
    }
    return page(request, "quarantine.html", values, status=status)


async def _detail(console: Console, session: Session, message: str) -> rows.Detail:
    """One message. Raises HTTPException 404 and CallFailed."""
    named = _MESSAGE.fullmatch(message)
    if named is None:
        raise HTTPException(404)
    asked = pb.GetQuarantinedRequest(agent=named[1] or "", quarantine_id=int(named[2]))
    method = console.coordinator.quarantine.GetQuarantined
    return rows.detail((await console.coordinator.call(method, asked, token=session.token)).message)


def _address(**parts: str) -> str:
    given = {name: value for name, value in parts.items() if value}
    return f"/quarantine?{urlencode(given)}" if given else "/quarantine"
