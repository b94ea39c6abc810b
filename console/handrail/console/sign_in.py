"""The pages about a person: signing in and out, and what the token proves."""

from __future__ import annotations

from datetime import UTC
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from handrail.console.coordinator import CallFailed
from handrail.console.openid.authorization import sign_out_link
from handrail.console.renewing import renewal_of
from handrail.console.web import forms, identities
from handrail.console.web.client_address import client_address
from handrail.console.web.console import (
    console_of,
    cookie_name,
    is_local,
    local_path,
    now,
    session_key,
    session_of,
    signed_in,
)
from handrail.console.web.pages import page
from handrail.console.web.sessions import TooManySessions
from handrail.v1.identity_service_pb2 import WhoAmIRequest

WAIT = "Too many attempts failed. Wait a minute, then try again."
"""What the page says to whoever has to wait."""

_LONGEST_TOKEN = 16_384
_SIGNED_OUT = "/sign-in?out=yes"


async def sign_in_page(request: Request) -> Response:
    """GET /sign-in."""
    back = local_path(request.query_params.get("back", "/"))
    if session_of(request) is not None:
        return RedirectResponse(back, 303)
    return form(request, back, problem=console_of(request).sessions.why_ended(session_key(request)))


async def sign_in(request: Request) -> Response:
    """POST /sign-in: a pasted token, or the name of a one-click identity."""
    options = console_of(request).options
    fields = await forms.read(request)
    back = local_path(fields.get("back", "/"))
    if has_to_wait(request):
        return form(request, back, status=429, problem=WAIT)
    pasted = fields.get("token", "").strip()
    if pasted and not options.pasted:
        return form(request, back, status=403, problem="This console takes no pasted tokens.")
    token = pasted or identities.token(options.identities, fields.get("identity", ""))
    problem = _why_no_token(token)
    if problem:
        return form(request, back, status=400, problem=problem)
    return await begin_session(request, token, back)


async def begin_session(request: Request, token: str, back: str, *, refresh_token: str = "") -> Response:
    """Begins the session of whoever the coordinator takes this token for, and leads back; or says why not."""
    console = console_of(request)
    try:
        who = await console.coordinator.call(console.coordinator.identity.WhoAmI, WhoAmIRequest(), token=token)
    except CallFailed as error:
        console.revocations.add(refresh_token)
        has_failed(request)
        status = 503 if error.code.name in ("UNAVAILABLE", "DEADLINE_EXCEEDED") else 403
        why = "The coordinator does not answer." if status == 503 else "The coordinator refuses this token."
        return form(request, back, status=status, problem=f"{why} {error.text}")
    # A session that this browser had, or was given by somebody else, does not go on as this person's.
    console.sessions.end(session_key(request))
    expires = who.expire_time.ToDatetime(UTC)
    try:
        key, session = console.sessions.begin(
            subject=who.subject,
            token=token,
            token_expires=expires,
            now=now(),
            renewal=renewal_of(refresh_token, expires),
        )
    except TooManySessions:
        console.revocations.add(refresh_token)
        return form(request, back, status=503, problem="Too many people are signed in. Try again later.")
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
        console.sessions.end(session_key(request))
    response = RedirectResponse(_SIGNED_OUT, 303)
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


def form(request: Request, back: str, *, status: int = 200, problem: str = "") -> Response:
    """The sign-in page."""
    console = console_of(request)
    known = console.provider.known if console.provider is not None else None
    values: dict[str, object] = {
        "back": back,
        "problem": problem,
        "identities": identities.names(console.options.identities),
        "pasted": console.options.pasted,
        "provider": console.provider.client.name if console.provider is not None else "",
        "begin": f"/sign-in/begin?back={quote(back, safe='')}",
        "is_out": "out" in request.query_params,
        "sign_out": sign_out_link(console.provider.client, known) if console.provider and known else "",
    }
    return page(request, "sign_in.html", values, status=status)


def has_to_wait(request: Request) -> bool:
    """Whether this client's address failed too often to be heard now."""
    return console_of(request).throttle.refuses(_address(request), now())


def has_failed(request: Request) -> None:
    """Counts a failure of this client's address."""
    console_of(request).throttle.failed(_address(request), now())


def _address(request: Request) -> str:
    peer = request.client.host if request.client else ""
    return client_address(peer, request.headers, console_of(request).options.trusted_proxies)


def _why_no_token(token: str) -> str:
    """Says what is wrong with the form of a token; empty if nothing is."""
    if not token:
        return "Paste a token, or choose somebody."
    if len(token) > _LONGEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        return "This is not a bearer token: it has characters that no token has."
    return ""
