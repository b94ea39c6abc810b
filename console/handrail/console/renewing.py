"""Renews the token of a session while its person or an open page asks for something."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import grpc
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from handrail.console import errors
from handrail.console.coordinator import CallFailed
from handrail.console.openid import tokens
from handrail.console.openid.provider import Provider, ProviderError, ProviderRefused
from handrail.console.web.console import Console, console_of, now, session_key
from handrail.console.web.sessions import Renewal, Session
from handrail.v1.identity_service_pb2 import WhoAmIRequest

log = logging.getLogger(__name__)

_EARLY = timedelta(seconds=30)
"""A token that ends so soon is renewed: a page takes some time, too."""

_PAUSE = timedelta(seconds=10)
"""So long a provider that gave no answer is left alone."""

_WITHOUT_TOKEN = ("/static/", "/sign-")
"""Paths that ask the coordinator nothing as the person of the session."""


class Renewing:
    """ASGI middleware. A request whose session has an ended token gets a page that says why, and nothing else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        answer = self._app
        if scope["type"] == "http" and not scope["path"].startswith(_WITHOUT_TOKEN):
            request = Request(scope)
            problem = await renewed(console_of(request), session_key(request), now())
            answer = errors.token_ended(request, problem) if problem else answer
        await answer(scope, receive, send)


def renewal_of(refresh_token: str, token_expires: datetime) -> Renewal | None:
    """How a session that begins with these goes on; None if it ends with its token."""
    return Renewal(refresh_token, token_expires, token_expires - _EARLY) if refresh_token else None


async def renewed(console: Console, key: str, now: datetime) -> str:
    """Renews the token of this session if it ends soon; all requests that need it wait for one renewal.

    Returns why the session can't go on now; empty if it can, or is over.
    """
    session = console.sessions.find(key, now, counts_as_use=False)
    if session is None or session.renewal is None or console.provider is None:
        return ""
    renewal = session.renewal
    if now >= renewal.due:
        if renewal.task is None:
            renewal.task = asyncio.create_task(_renew(console, console.provider, key, session, renewal, now))
        # A browser that goes away does not end the renewal: its refresh token may be used up already.
        await asyncio.shield(renewal.task)
    return renewal.problem if now >= renewal.token_expires and not session.ended.is_set() else ""


async def _renew(
    console: Console, provider: Provider, key: str, session: Session, renewal: Renewal, now: datetime
) -> None:
    try:
        found = await tokens.refresh(provider, renewal.refresh_token)
        renewal.refresh_token = found.refresh_token or renewal.refresh_token
        if session.ended.is_set():
            # It ended meanwhile: what was revoked then was the token before this one.
            console.revocations.add(renewal.refresh_token)
            return
        who = await console.coordinator.call(
            console.coordinator.identity.WhoAmI, WhoAmIRequest(), token=found.access_token
        )
        if who.subject != session.subject:
            console.sessions.end(key, why=f"{provider.client.name} renewed the token of another person. Sign in again.")
            return
        session.token = found.access_token
        renewal.token_expires = who.expire_time.ToDatetime(UTC)
        renewal.due, renewal.problem = renewal.token_expires - _EARLY, ""
    except ProviderRefused as error:
        console.sessions.end(key, why=f"Your session is over. {error} Sign in again.")
    except ProviderError as error:
        _put_off(renewal, now, str(error))
    except CallFailed as error:
        if error.code is grpc.StatusCode.UNAUTHENTICATED:
            console.sessions.end(key, why=f"The coordinator refuses your renewed token: {error.text} Sign in again.")
        else:
            _put_off(renewal, now, "The coordinator does not answer.")
    finally:
        renewal.task = None


def _put_off(renewal: Renewal, now: datetime, why: str) -> None:
    log.warning("a token is not renewed, and will be tried again: %s", why)
    renewal.due, renewal.problem = now + _PAUSE, why
