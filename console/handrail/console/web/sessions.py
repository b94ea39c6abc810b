"""Who is signed in. Sessions live in memory only: a restart ends them all."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from handrail.mesh.contracts import Contracts
from handrail.v1.template_pb2 import FlowTemplate

IDLE = timedelta(hours=1)
"""A session ends after so much time without a request by its person."""

LONGEST = timedelta(hours=12)
"""A session ends after so much time in any case, and not later than its token."""

_MOST = 1_000
_MOST_OF_ONE_PERSON = 20
_MOST_TYPES = 32
_MOST_TOLD = 1_000


class TooManySessions(Exception):
    """As many people are signed in as the console takes."""


@dataclass(frozen=True, slots=True)
class FlowType:
    """A stored version of a template, and its contracts."""

    template: FlowTemplate
    contracts: Contracts


@dataclass(slots=True, eq=False)
class Renewal:
    """How the token of a session is renewed, which ends at `token_expires`: at the first request after `due`.

    `problem` says why it was not renewed when it was tried last. `task` is the renewal that runs.
    """

    refresh_token: str = field(repr=False)
    token_expires: datetime
    due: datetime
    problem: str = ""
    task: asyncio.Task[None] | None = None


@dataclass(slots=True, eq=False)
class Session:
    """One person's session in one browser. `ended` is set when it is over. Only with a `renewal` it may outlive its
    first token."""

    subject: str
    token: str = field(repr=False)
    started: datetime
    used: datetime
    expires: datetime
    renewal: Renewal | None = None
    form_token: str = field(repr=False, default_factory=lambda: secrets.token_urlsafe(24))
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    streams: int = 0
    types: dict[tuple[str, int], FlowType] = field(default_factory=dict)

    def remember(self, name: str, version: int, found: FlowType) -> None:
        """Keeps a version for the next page of this person; the oldest gives way."""
        while len(self.types) >= _MOST_TYPES:
            del self.types[next(iter(self.types))]
        self.types[name, version] = found


class Sessions:
    """All sessions, by the random id that only the browser's cookie has.

    However one ends, `revoke` is given its refresh token.
    """

    def __init__(self, revoke: Callable[[str], None] = lambda _: None) -> None:
        self._revoke = revoke
        self._sessions: dict[str, Session] = {}
        self._told: OrderedDict[str, str] = OrderedDict()

    def begin(
        self, *, subject: str, token: str, token_expires: datetime, now: datetime, renewal: Renewal | None = None
    ) -> tuple[str, Session]:
        """Begins a session under a new id. A person's oldest gives way to one too many.

        Raises TooManySessions if the console is full.
        """
        self.end_expired(now)
        own = [key for key, each in self._sessions.items() if each.subject == subject]
        for key in own[: max(0, len(own) + 1 - _MOST_OF_ONE_PERSON)]:
            self.end(key)
        if len(self._sessions) >= _MOST:
            raise TooManySessions
        expires = now + LONGEST if renewal is not None else min(now + LONGEST, token_expires)
        session = Session(subject, token, now, now, expires, renewal)
        key = secrets.token_urlsafe(32)
        self._sessions[key] = session
        return key, session

    def find(self, key: str, now: datetime, *, counts_as_use: bool = True) -> Session | None:
        """Returns the session with this id, unless it is over. What a page asks by itself does not count as use."""
        session = self._sessions.get(key)
        if session is None:
            return None
        if _is_over(session, now):
            self.end(key)
            return None
        if counts_as_use:
            session.used = now
        return session

    def end(self, key: str, *, why: str = "") -> None:
        """Ends a session and its streams; an unknown id is none. Its browser is told `why` when it signs in again."""
        session = self._sessions.pop(key, None)
        if session is None:
            return
        session.ended.set()
        if session.renewal is not None:
            self._revoke(session.renewal.refresh_token)
        if why:
            self._told[key] = why
            if len(self._told) > _MOST_TOLD:
                self._told.popitem(last=False)

    def why_ended(self, key: str) -> str:
        """Why the session with this id ended; empty if that needs no words."""
        return self._told.get(key, "")

    def end_all(self, subject: str | None = None) -> None:
        """Ends all sessions of a person, in whatever browser; of all people unless one is named."""
        for key in [key for key, each in self._sessions.items() if subject is None or each.subject == subject]:
            self.end(key)

    def end_expired(self, now: datetime) -> None:
        """Ends the sessions that are over by now."""
        for key in [key for key, each in self._sessions.items() if _is_over(each, now)]:
            self.end(key)

    def count(self, subject: str) -> int:
        """Returns how many sessions a person has."""
        return sum(each.subject == subject for each in self._sessions.values())


def _is_over(session: Session, now: datetime) -> bool:
    return now >= session.expires or now - session.used >= IDLE
