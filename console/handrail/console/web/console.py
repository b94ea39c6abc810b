"""What the routes of one console share."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

from starlette.requests import Request

from handrail.console.coordinator import Coordinator
from handrail.console.openid.begun import Seal
from handrail.console.openid.provider import Provider
from handrail.console.openid.revocations import Revocations
from handrail.console.options import LOOPBACK_HOSTS, Options
from handrail.console.web.guard import without_port
from handrail.console.web.sessions import Session, Sessions
from handrail.console.web.throttle import Throttle

ASKED_BY_PAGE = "handrail-live"
"""The header of a request that a page sends by itself. It does not keep its session alive."""


class SignInNeeded(Exception):
    """Nobody is signed in in this browser. `back` is the page to go back to afterwards."""

    def __init__(self, back: str) -> None:
        super().__init__(back)
        self.back = back


@dataclass(frozen=True, slots=True)
class Console:
    """The parts of one console. Without a `provider`, nobody signs in by OpenID Connect.

    `revocations` gets the refresh tokens of `sessions` that ended.
    """

    options: Options
    coordinator: Coordinator
    provider: Provider | None
    revocations: Revocations
    sessions: Sessions
    seal: Seal = field(default_factory=Seal)
    throttle: Throttle = field(default_factory=Throttle)


def console_of(request: Request) -> Console:
    """The console that a request came to."""
    found: Console = request.app.state.console
    return found


def now() -> datetime:
    """The present."""
    return datetime.now(UTC)


def is_local(request: Request) -> bool:
    """Whether the browser addresses the console as one on its own machine."""
    return without_port(request.headers.get("host", "")) in LOOPBACK_HOSTS


def cookie_name(request: Request) -> str:
    """The name of the session's cookie. With `__Host-`, no other host can set it; it needs TLS."""
    return "handrail_session" if is_local(request) else "__Host-handrail_session"


def session_key(request: Request) -> str:
    """The id of a session that the browser gives; it may be over. Empty if it gives none."""
    return request.cookies.get(cookie_name(request), "")


def session_of(request: Request, *, by_person: bool = True) -> Session | None:
    """The session of the browser; None if nobody is signed in. Only what a person asks for keeps it alive."""
    key = session_key(request)
    counts = by_person and ASKED_BY_PAGE not in request.headers
    return console_of(request).sessions.find(key, now(), counts_as_use=counts) if key else None


def signed_in(request: Request) -> Session:
    """The session of the browser. Raises SignInNeeded if there is none."""
    session = session_of(request)
    if session is None:
        back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        raise SignInNeeded(back if request.method == "GET" else "/")
    return session


def local_path(text: str) -> str:
    """A path of this console, with its query; `/` for anything that could lead elsewhere."""
    is_ours = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isascii() and text.isprintable()
    return text if is_ours and "\\" not in text and len(text) <= 2_000 else "/"


def sign_in_path(back: str) -> str:
    """The address of the sign-in page that leads back to a page."""
    return "/sign-in" if back == "/" else f"/sign-in?back={quote(back, safe='')}"
