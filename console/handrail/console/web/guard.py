"""Stands before every page: refuses requests from foreign sites and host names, and says what browsers may do."""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SAFE_METHODS = frozenset({"GET", "HEAD"})

_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With `no-referrer`, browsers would send `Origin: null` with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class Guard:
    """ASGI middleware. Gives each request an id in `request.state.request_id`."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers["request-id"] = request_id
                headers["cache-control"] = "no-cache" if scope["path"].startswith("/static/") else "no-store"
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        answer: ASGIApp = self._app
        if refusal is not None:
            status, why = refusal
            answer = PlainTextResponse(f"{why} (request {request_id})\n", status)
        await answer(scope, receive, send_guarded)

    def _refusal(self, method: str, headers: Headers) -> tuple[int, str] | None:
        """The status and the reason with which a request is refused; None if it may go on."""
        host = headers.get("host", "")
        if without_port(host) not in self._hosts:
            # A page of a stranger whose name leads to this machine would be let in otherwise (DNS rebinding).
            return 400, "The console is not known by this host name. If it should be, start it with --allowed-host."
        if method in _SAFE_METHODS:
            return None
        if method != "POST":
            return 405, "The console takes GET and POST."
        if urlsplit(headers.get("origin", "")).netloc != host:
            return 403, "This form was not sent from a page of this console. Open the console itself."
        return None


def without_port(host: str) -> str:
    """The name in a Host header, in lower case."""
    name, _, port = host.rpartition(":")
    return (name if name and port.isdigit() else host).lower()
