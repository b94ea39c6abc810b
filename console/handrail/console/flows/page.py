"""The route of the list of flows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from handrail.console.flow import states
from handrail.console.flows import chips
from handrail.console.flows.waits import wait_of
from handrail.console.web.asking import listed
from handrail.console.web.console import console_of, now, signed_in
from handrail.console.web.pages import page
from handrail.v1 import flow_service_pb2 as pb

_ROWS = 25
_ORDERS = {
    "started desc": "newest first",
    "started": "oldest first",
    "updated desc": "changed last",
    "deadline": "nearest deadline",
}
_LONGEST = 2_000


async def flows(request: Request) -> Response:
    """GET /flows?filter=FILTER&order=ORDER: from the index, or with `scan` from the stream."""
    session, console = signed_in(request), console_of(request)
    query = request.query_params
    wanted = query.get("filter", "").strip()[:_LONGEST]
    order = query.get("order", "")
    order = order if order in _ORDERS else "started desc"
    is_scan = bool(query.get("scan")) and not wanted
    asked = pb.ListFlowsRequest(filter=wanted, page_size=_ROWS, page_token=query.get("page", "")[:1_024], scan=is_scan)
    if not is_scan:
        asked.order_by = order
    call = console.coordinator.call(console.coordinator.flows.ListFlows, asked, token=session.token)
    found, problem, status = await listed(call, pb.ListFlowsResponse())
    present = now()
    values: dict[str, object] = {
        "filter": wanted,
        "order": order,
        "orders": _ORDERS,
        "is_scan": is_scan,
        "problem": problem,
        "rows": [_row(each, present) for each in found.flows],
        "active": [(each.label, _address(each.filter, order)) for each in chips.active(wanted)],
        "offered": [(each.label, _address(each.filter, order)) for each in chips.offered(wanted)],
        "next": _address(wanted, order, page=found.next_page_token, scan=is_scan) if found.next_page_token else "",
        "first": _address(wanted, order, scan=is_scan) if query.get("page") else "",
        "total": _total(found),
        "covered": found.as_of.time.ToDatetime(UTC) if found.as_of.HasField("time") else None,
        "behind": found.as_of.messages_behind if found.as_of.HasField("messages_behind") else None,
        "now": present,
    }
    return page(request, "flows.html", values, status=status)


def _row(flow: pb.Flow, present: datetime) -> Mapping[str, object]:
    return {
        "flow": flow,
        "wait": wait_of(flow, present),
        "state": states.of_flow(flow.status),
        "started": flow.start_time.ToDatetime(UTC),
        "updated": flow.update_time.ToDatetime(UTC),
    }


def _total(found: pb.ListFlowsResponse) -> str:
    """How many flows the list has, in words; empty if it was not counted."""
    if not found.HasField("total"):
        return ""
    number = f"{found.total.items:,} {'flow' if found.total.items == 1 else 'flows'}"
    return f"more than {number}" if found.total.at_least else number


def _address(wanted: str, order: str, *, page: str = "", scan: bool = False) -> str:
    """The address of a list; what is the default is left out."""
    parts = {
        "filter": wanted,
        "order": "" if order == "started desc" else order,
        "scan": "yes" if scan else "",
        "page": page,
    }
    given = {name: value for name, value in parts.items() if value}
    return f"/flows?{urlencode(given)}" if given else "/flows"
