"""The pages about a person: signing in and out, and what the token proves."""

from __future__ import annotations

from datetime import UTC

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from handrail.console.coordinator import CallFailed
from handrail.console.web import forms, identities
from handrail.console.web.console import (
    console_of,
    cookie_name,
    is_local,
    local_path,
    now,
    session_of,
    sign_in_path,
    signed_in,
)
from handrail.console.web.pages import page
from handrail.console.web.sessions import TooManySessions
from handrail.v1.identity_service_pb2 import WhoAmIRequest

_LONGEST_TOKEN = 16_384


async def sign_in_page(request: Request) -> Response:
    """GET /sign-in."""
    back = local_path(request.query_params.get("back", "/"))
    if session_of(request) is not None:
        return RedirectResponse(back, 303)
    return _form(request, back)


async def sign_in(request: Request) -> Response:
    """POST /sign-in: a pasted token, or the name of a one-click identity."""
    console = console_of(request)
    fields = await forms.read(request)
    back = local_path(fields.get("back", "/"))
    address = request.client.host if request.client else ""
    if console.throttle.refuses(address, now()):
        return _form(request, back, status=429, problem="Too many attempts failed. Wait a minute, then try again.")
    token = fields.get("token", "").strip() or identities.token(console.options.identities, fields.get("identity", ""))
    problem = _why_no_token(token)
    if problem:
        return _form(request, back, status=400, problem=problem)
    try:
        who = await console.coordinator.call(console.coordinator.identity.WhoAmI, WhoAmIRequest(), token=token)
    except CallFailed as error:
        console.throttle.failed(address, now())
        status = 503 if error.code.name in ("UNAVAILABLE", "DEADLINE_EXCEEDED") else 403
        why = "The coordinator does not answer." if status == 503 else "The coordinator refuses this token."
        return _form(request, back, status=status, problem=f"{why} {error.text}")
    # A session that this browser had, or was given by somebody else, does not go on as this person's.
    console.sessions.end(request.cookies.get(cookie_name(request), ""))
    try:
        key, session = console.sessions.begin(
            subject=who.subject, token=token, token_expires=who.expire_time.ToDatetime(UTC), now=now()
        )
    except TooManySessions:
        return _form(request, back, status=503, problem="Too many people are signed in. Try again later.")
    response = RedirectResponse(back, 303)
    response.set_cookie(
        cookie_name(request),
        key,
        max_age=int((session.expires - session.started).total_seconds()),
        httponly=True,
        samesite="lax",
        secure=not is_local(request),
        path="/",
    )
    return response


async def sign_out(request: Request) -> Response:
    """POST /sign-out: here, or everywhere."""
    session = signed_in(request)
    fields = await forms.read(request)
    forms.require_own(fields, session)
    console = console_of(request)
    if fields.get("everywhere"):
        console.sessions.end_all(session.subject)
    else:
        console.sessions.end(request.cookies[cookie_name(request)])
    response = RedirectResponse(sign_in_path("/"), 303)
    response.delete_cookie(cookie_name(request), path="/", httponly=True, samesite="lax", secure=not is_local(request))
    return response


async def account(request: Request) -> Response:
    """GET /account: who the coordinator takes the person for."""
    session, console = signed_in(request), console_of(request)
    who = await console.coordinator.call(console.coordinator.identity.WhoAmI, WhoAmIRequest(), token=session.token)
    values: dict[str, object] = {
        "who": who,
        "issued": who.issue_time.ToDatetime(UTC) if who.HasField("issue_time") else None,
        "expires": who.expire_time.ToDatetime(UTC),
        "session_expires": session.expires,
        "sessions": console.sessions.count(session.subject),
    }
    return page(request, "account.html", values)


def _form(request: Request, back: str, *, status: int = 200, problem: str = "") -> Response:
    names = identities.names(console_of(request).options.identities)
    return page(request, "sign_in.html", {"back": back, "problem": problem, "identities": names}, status=status)


def _why_no_token(token: str) -> str:
    """Says what is wrong with the form of a token; empty if nothing is."""
    if not token:
        return "Paste a token, or choose somebody."
    if len(token) > _LONGEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        return "This is not a bearer token: it has characters that no token has."
    return ""
