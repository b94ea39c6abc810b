"""The routes of one flow: by its id, and by its business key."""

from __future__ import annotations

import re
from datetime import UTC
from urllib.parse import quote, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from handrail.console.coordinator import CallFailed
from handrail.console.flow import events, graph, states
from handrail.console.flow.proposals import Proposal, fields
from handrail.console.flow.reading import MOST_EVENTS, Reading, read
from handrail.console.flow.sentence import sentences, untold
from handrail.console.flow.timeline import timeline
from handrail.console.web.console import Console, console_of, signed_in
from handrail.console.web.pages import page
from handrail.console.web.sessions import Session
from handrail.mesh.wire.ids import flow_id_from_key
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.decision_pb2 import Choice

_TABS = ("timeline", "events", "graph", "causes", "undo")
_FLOW_ID = re.compile(r"[0-9a-f]{32}")
_FLOW_TYPE = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_ROWS = 50
_LONGEST_KEY = 1_024
_LONGEST_WORD = 500


async def by_id(request: Request) -> Response:
    """GET /flows/{flow_id}."""
    return await _page(request, request.path_params["flow_id"], title="")


async def by_key(request: Request) -> Response:
    """GET /flows/{flow_type}/{key}: the flow that this business key began."""
    flow_type, key = request.path_params["flow_type"], request.path_params["key"]
    if not _FLOW_TYPE.fullmatch(flow_type) or len(key) > _LONGEST_KEY:
        raise HTTPException(404)
    return await _page(request, flow_id_from_key(flow_type, key), title=key)


async def find(request: Request) -> Response:
    """GET /find: leads to a flow by what a person typed: an id, or a type and a key; a key alone leads to a list."""
    signed_in(request)
    wanted = request.query_params.get("q", "").strip()
    if _FLOW_ID.fullmatch(wanted.lower().replace("-", "")):
        return RedirectResponse(f"/flows/{wanted.lower().replace('-', '')}", 303)
    flow_type, _, key = wanted.partition("/")
    if _FLOW_TYPE.fullmatch(flow_type.strip()) and key.strip():
        return RedirectResponse(f"/flows/{flow_type.strip()}/{quote(key.strip(), safe='')}", 303)
    if wanted and "/" not in wanted and len(wanted) <= _LONGEST_WORD:
        return RedirectResponse(f"/flows?{urlencode({'filter': f'key = {_quoted(wanted)}'})}", 303)
    return page(request, "find.html", {"wanted": wanted})


def _quoted(text: str) -> str:
    """A text as a value of a filter."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*")
    return f'"{escaped}"'


async def _page(request: Request, flow_id: str, *, title: str) -> Response:
    session, console = signed_in(request), console_of(request)
    query = request.query_params
    tab = query.get("tab", "timeline")
    if tab not in _TABS:
        raise HTTPException(404)
    reading = await read(console, session, flow_id, _number(query.get("at", "")))
    flow = reading.flow
    path = quote(request.url.path)
    content = await _content(console, session, tab, reading, request)
    values: dict[str, object] = {
        "title": title or flow.key,
        "tab": tab,
        "tabs": _tabs(path, reading),
        "reading": reading,
        "flow": flow,
        "state": states.of_flow(flow.status),
        "lines": sentences(flow, reading.at),
        "now": reading.at,
        "started": flow.start_time.ToDatetime(UTC),
        "updated": flow.update_time.ToDatetime(UTC),
        "is_over": flow.status in states.FINAL,
        "begun_by": flow.requester or (reading.events[0].agent if reading.events else ""),
        "live": "" if reading.is_past or flow.status in states.FINAL else f"/live/{flow_id}",
        "trace": console.options.trace_link.replace("{trace}", flow_id),
        "short_type": states.short_type,
        "untold": untold(flow),
        "choices": _choices(flow),
        "path_only": path,
    }
    return page(request, "flow.html", values | content)


async def _content(
    console: Console, session: Session, tab: str, reading: Reading, request: Request
) -> dict[str, object]:
    """What one tab shows."""
    query = request.query_params
    if tab == "events":
        first, chosen = _number(query.get("from", "")) or 1, _number(query.get("event", ""))
        return _events(reading, step=query.get("step", ""), first=first, chosen=chosen)
    if tab == "causes":
        return {"rows": events.tree(reading.events[: _ROWS * 10], reading.opened)}
    if tab == "graph":
        template = reading.type.template if reading.type else None
        return {"svg": graph.graph_of_flow(template, reading.flow, reading.events) if template else None}
    if tab == "undo":
        return await _plan(console, session, reading.flow.flow_id)
    template = reading.type.template if reading.type else None
    return {"timeline": timeline(reading.flow, template, reading.at), "proposals": _proposals(reading)}


def _events(reading: Reading, *, step: str, first: int, chosen: int | None) -> dict[str, object]:
    found = [each for each in reading.events if not step or each.event.step == step]
    shown = found[first - 1 : first - 1 + _ROWS]
    selected = next((each for each in reading.events if each.sequence == chosen), None)
    return {
        "rows": events.rows(shown, reading.opened),
        "selected": events.detail(selected, reading.opened) if selected is not None else None,
        "step": step,
        "first": first,
        "next": first + _ROWS if first + _ROWS <= len(found) else None,
        "previous": max(1, first - _ROWS) if first > 1 else None,
        "found": len(found),
        "most": MOST_EVENTS,
    }


async def _plan(console: Console, session: Session, flow_id: str) -> dict[str, object]:
    """What undoing the flow would do now; or why it can't be undone."""
    request = pb.PlanCompensationRequest(flow_id=flow_id)
    try:
        plan = await console.coordinator.call(console.coordinator.flows.PlanCompensation, request, token=session.token)
    except CallFailed as error:
        if error.reason != "WRONG_STATUS":
            raise
        return {"plan": None, "why": error.text}
    return {"plan": plan, "why": ""}


def _proposals(reading: Reading) -> list[Proposal]:
    found = [each for each in reading.flow.approvals if each.status == pb.APPROVAL_STATUS_PENDING]
    return [Proposal(each, fields(reading.payload(each.data))) for each in found]


def _tabs(path: str, reading: Reading) -> list[tuple[str, str, str]]:
    """Name, label and address of each tab, at the moment that is shown."""
    at = {"at": str(reading.place)} if reading.is_past else {}
    labels = {
        "timeline": "Timeline",
        "events": f"Events {reading.place}",
        "graph": "Graph",
        "causes": "Causes",
        "undo": "Undo plan",
    }
    return [(tab, labels[tab], f"{path}?{urlencode({'tab': tab, **at})}") for tab in _TABS]


def _choices(flow: pb.Flow) -> dict[str, list[str]]:
    return {
        each.escalation_id: [states.choice(Choice.Name(one)) for one in each.choices if one in Choice.values()]
        for each in flow.escalations
    }


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
