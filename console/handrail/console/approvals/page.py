"""The route of the inbox of approvals."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlencode

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from handrail.console.approvals import inbox
from handrail.console.approvals.inbox import View
from handrail.console.approvals.voter import Voter, voter
from handrail.console.flow import states
from handrail.console.flow.proposals import fields
from handrail.console.web.asking import listed, part
from handrail.console.web.console import Console, console_of, now, signed_in
from handrail.console.web.pages import page
from handrail.console.web.sessions import Session
from handrail.v1.approval_service_pb2 import ListApprovalsRequest, ListApprovalsResponse
from handrail.v1.delegation_service_pb2 import ListDelegationsRequest
from handrail.v1.flow_service_pb2 import Approval, Flow, GetFlowRequest, ListFlowsRequest
from handrail.v1.identity_service_pb2 import WhoAmIRequest

Ask: TypeAlias = Callable[[ListApprovalsRequest], Awaitable[ListApprovalsResponse]]
"""Asks for a page of approvals."""

_PAGE, _MOST = 100, 1_000
"""So many are read at a time and at most, those that wait the longest: the views are parts of these."""

_SHOWN = 100
"""So many rows of a view are shown."""

_DELEGATIONS = 500
_WAITING, _FLOWS = "waiting", 500
"""The flows whose keys are shown: those that the index finds first."""

_GONE = "The first approval of this list can't be shown: its flow has none with this id, or you may not see it."

_LONGEST = 2_000
_APPROVAL_ID = re.compile(r"[a-z][a-z0-9_-]{0,62}\.([0-9a-f]{32})\.[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Detail:
    """The approval at the side: what is proposed, and what happens if nobody answers."""

    approval: Approval
    flow: Flow
    standing: str
    fields: tuple[tuple[str, str], ...]
    otherwise: str

    @property
    def state(self) -> states.State:
        """Where it stands."""
        return states.of_approval(self.approval.status)


async def approvals(request: Request) -> Response:
    """GET /approvals?view=VIEW&filter=FILTER&approval=ID; with `scan` from the stream."""
    session, console = signed_in(request), console_of(request)
    query = request.query_params
    wanted = query.get("filter", "").strip()[:_LONGEST]
    asked = ListApprovalsRequest(page_size=_PAGE, filter=wanted, scan=bool(query.get("scan")) and not wanted)
    method = console.coordinator.approvals.ListApprovals

    def ask(page: ListApprovalsRequest) -> Awaitable[ListApprovalsResponse]:
        return console.coordinator.call(method, page, token=session.token)

    keyed = ListFlowsRequest(filter=_WAITING, page_size=_FLOWS, read_mask=FieldMask(paths=["flow_id", "key"]))
    known = console.coordinator.call(console.coordinator.flows.ListFlows, keyed, token=session.token)
    person, (found, problem, status), waiting = await asyncio.gather(
        _voter(console, session), listed(ask(asked), ListApprovalsResponse()), part(known)
    )
    key, chosen = query.get("view", ""), query.get("approval", "")
    # Nothing can wait for a person without roles, and every page of a scan reads the whole stream.
    if person.roles and not asked.scan:
        wanted_view = key or inbox.MINE
        await _read_on(ask, asked, found, is_enough=lambda: bool(_view(_views(found, person), wanted_view).rows))
    views = _views(found, person)
    shown = _view(views, key)
    first = shown.rows[0].approval.approval_id if shown.rows else ""
    detail, problem_of_detail = (
        (await _detail(console, session, person, chosen), "")
        if chosen
        else await _unasked(console, session, person, first)
    )
    common = {"filter": wanted, "scan": "yes" if asked.scan else ""}
    values: dict[str, object] = {
        "filter": wanted,
        "problem": problem,
        "is_scan": asked.scan,
        "views": [(each, _address(view=each.key, **common)) for each in views],
        "view": shown,
        "rows": [
            (row, _address(view=shown.key, approval=row.approval.approval_id, **common)) for row in shown.rows[:_SHOWN]
        ],
        "keys": {each.flow_id: each.key for each in waiting.answer.flows} if waiting.answer else {},
        "everything": _address(view=inbox.ALL, **common),
        "back": _address(view=shown.key, **common),
        "chosen": chosen,
        "detail": detail,
        "problem_of_detail": problem_of_detail,
        "most": len(found.approvals) if found.next_page_token else 0,
        "total": found.total,
        "short_type": states.short_type,
        "now": now(),
    }
    return page(request, "approvals.html", values, status=status)


async def _voter(console: Console, session: Session) -> Voter:
    to, token = console.coordinator, session.token
    who, passed_on = await asyncio.gather(
        to.call(to.identity.WhoAmI, WhoAmIRequest(), token=token),
        to.call(to.delegations.ListDelegations, ListDelegationsRequest(page_size=_DELEGATIONS), token=token),
    )
    return voter(who, passed_on.delegations)


async def _read_on(
    ask: Ask, asked: ListApprovalsRequest, found: ListApprovalsResponse, *, is_enough: Callable[[], bool]
) -> None:
    """Adds further pages to what was found, until that is enough or the most. A page without an answer ends it."""
    request = ListApprovalsRequest()
    request.CopyFrom(asked)
    while found.next_page_token and len(found.approvals) < _MOST and not is_enough():
        request.page_token = found.next_page_token
        following = (await part(ask(request))).answer
        if following is None:
            return
        found.approvals.extend(following.approvals)
        found.next_page_token = following.next_page_token


def _views(found: ListApprovalsResponse, person: Voter) -> list[View]:
    return inbox.views(inbox.rows(found.approvals, person, now()), person)


def _view(views: Sequence[View], key: str) -> View:
    """The view of this key. Without one, what waits for the person; if that is nothing, all."""
    named = next((each for each in views if each.key == key), None)
    return named or (views[0] if views[0].rows else views[-1])


async def _unasked(console: Console, session: Session, person: Voter, approval_id: str) -> tuple[Detail | None, str]:
    """The approval that is shown as long as nobody chose one; without one, why. Raises CallFailed for a bad token."""
    if not approval_id:
        return None, ""
    try:
        found = await part(_detail(console, session, person, approval_id))
    except HTTPException:
        return None, _GONE
    return found.answer, "" if found.answer else found.problem or _GONE


async def _detail(console: Console, session: Session, person: Voter, approval_id: str) -> Detail:
    """The approval as it is now, in its flow. Raises HTTPException 404 and CallFailed."""
    named = _APPROVAL_ID.fullmatch(approval_id)
    if named is None:
        raise HTTPException(404)
    asked = GetFlowRequest(flow_id=named[1])
    flow = (await console.coordinator.call(console.coordinator.flows.GetFlow, asked, token=session.token)).flow
    found = next((each for each in flow.approvals if each.approval_id == approval_id), None)
    if found is None:
        raise HTTPException(404)
    otherwise = {each.otherwise for each in flow.expectations if each.subject_id == approval_id}
    return Detail(
        found,
        flow,
        person.standing(found).value,
        # A Struct has no order.
        fields(dict(sorted(MessageToDict(found.data_json).items()))),
        otherwise.pop() if len(otherwise) == 1 else "",
    )


def _address(**parts: str) -> str:
    """The address of the inbox with these parts; empty ones are left out."""
    given = {name: value for name, value in parts.items() if value}
    return f"/approvals?{urlencode(given)}" if given else "/approvals"
