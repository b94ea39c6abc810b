"""An identity provider that answers what a test wants, true or not. It looks at nothing that it is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt

from handrail.console.openid.client import Client
from tests.support.console import Browser
from tests.support.tokens import Private, algorithm_of, jwk, key_set, private_key
from tests.support.web_server import WebServer, web_server

DISCOVERY, TOKEN, KEYS = "/.well-known/openid-configuration", "/token", "/jwks"
CLIENT = "handrail-console"


@dataclass
class Answer:
    """One answer, instead of the right one."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class ScriptedProvider:
    """A running provider. By default its answers are right, and its access token is the one that the test sets."""

    server: WebServer
    access_token: str = "a.b.c"
    refresh_token: str = ""
    key: Private = field(default_factory=lambda: private_key("ES256"))
    nonce: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Changes of what it says of itself."""
    claims: dict[str, Any] = field(default_factory=dict)
    """Changes of the ID token's claims; None leaves one out."""
    id_token: str | None = None
    """The ID token instead of one that it signs."""
    answers: dict[str, Answer] = field(default_factory=dict)
    """Answers by path, instead of the right ones."""

    @property
    def issuer(self) -> str:
        """Its address."""
        return self.server.url.removesuffix("/keys")

    @property
    def asked(self) -> list[str]:
        """The paths that were asked for."""
        return self.server.asked

    def client(self, **changes: Any) -> Client:
        """The console as its client."""
        return Client(**{"issuer": self.issuer, "client_id": CLIENT, "ca": self.server.ca, **changes})

    async def sign_in(self, browser: Browser, *, begun: str = "", **answer: str) -> httpx.Response:
        """Begins, unless it was, and comes back with a code, or with this answer. Returns the console's last page."""
        link = begun or await self.begin(browser)
        asked = parse_qs(urlsplit(link).query)
        self.nonce = asked["nonce"][0]
        query = answer or {"code": "a code"}
        return await browser.client.get("/sign-in/callback", params={"state": asked["state"][0], **query})

    async def begin(self, browser: Browser) -> str:
        """Presses the button. Returns where the console sends the browser."""
        answer = await browser.get("/sign-in/begin")
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    def signed(self, **claims: Any) -> str:
        """An ID token with these changes, signed with the key. A timedelta says when, from now."""
        now = int(datetime.now(UTC).timestamp())
        right = {
            "iss": self.issuer,
            "sub": "1",
            "aud": CLIENT,
            "iat": now,
            "exp": now + 600,
            "nonce": self.nonce,
            **claims,
        }
        times = {
            name: now + int(value.total_seconds()) for name, value in right.items() if isinstance(value, timedelta)
        }
        known = {name: value for name, value in {**right, **times}.items() if value is not None}
        return jwt.encode(known, self.key, algorithm_of(self.key), headers={"kid": "first"})

    def answer(self) -> None:
        """Sets the server's next answer."""
        path = self.server.asked[-1]
        found = self.answers.get(path) or Answer(self._right(path))
        self.server.page.body, self.server.page.status = found.body, found.status
        self.server.page.headers = dict(found.headers)

    def _right(self, path: str) -> bytes:
        if path == KEYS:
            return key_set(jwk(self.key, "first"))
        if path == DISCOVERY:
            endpoints = {"authorization": "/auth", "token": TOKEN, "revocation": "/revoke"}
            known = {f"{name}_endpoint": self.issuer + each for name, each in endpoints.items()}
            told = {"issuer": self.issuer, "jwks_uri": self.issuer + KEYS, **known, **self.metadata}
            return json.dumps(told).encode()
        given = {"access_token": self.access_token, "token_type": "Bearer", "refresh_token": self.refresh_token}
        id_token = self.signed(**self.claims) if self.id_token is None else self.id_token
        return json.dumps({**given, "id_token": id_token}).encode()


@contextmanager
def scripted_provider(folder: Path | None = None) -> Iterator[ScriptedProvider]:
    """Runs it while the block runs; with a folder, by TLS with an authority of its own."""
    with web_server(folder) as server:
        provider = ScriptedProvider(server)
        server.page.wait = provider.answer
        yield provider
