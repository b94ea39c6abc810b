"""A coordinator that knows an identity provider by its address alone, and a console at which people sign in there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from handrail.console.openid.client import Client
from handrail.console.web.sessions import Renewal, Session
from handrail.coordinator.api.tokens.rules import ClaimNames, Rules
from handrail.coordinator.api.tokens.settings import TokenSettings
from handrail.mesh.bus import NatsBus
from tests.support.api import Api, running_api
from tests.support.console import Browser, browsing
from tests.support.provider import IdentityProvider, come_back, running_provider

CLIENTS = {"handrail-console": "the console: alone", "public-console": ""}
"""The console's clients at the provider, with their secrets."""


@asynccontextmanager
async def house(
    bus: NatsBus, installation: Path, folder: Path, algorithm: str = "ES256", **environment: str
) -> AsyncIterator[tuple[Api, IdentityProvider]]:
    """A provider that signs with a key of this algorithm, and a coordinator that takes its tokens."""
    with running_provider(installation, folder, algorithm, **environment) as provider:
        await provider.ready()
        names = ClaimNames(subject="preferred_username", roles="realm_access.roles")
        tokens = TokenSettings(
            rules=Rules(issuer=provider.issuer, names=names, required=("iat",)),
            key_set=provider.key_set,
            cooldown=timedelta(milliseconds=100),
        )
        async with running_api(bus, folder, tokens=tokens) as api:
            yield api, provider


@dataclass
class Visitor:
    """A person with a browser at a console; nobody is signed in."""

    browser: Browser

    def session(self) -> tuple[Session, Renewal]:
        """The only session of the console, which began at the provider."""
        [session] = self.browser.console.sessions._sessions.values()
        assert session.renewal is not None
        return session, session.renewal

    async def begin(self, back: str = "/") -> str:
        """Presses the button. Returns where the console sends the browser."""
        answer = await self.browser.get(f"/sign-in/begin?back={quote(back, safe='')}")
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    async def come_back(self, link: str, person: str, *, deny: bool = False) -> str:
        """Signs in at the provider. Returns the path to which it sends the browser back, which does not go there."""
        found = urlsplit(await asyncio.to_thread(come_back, link, person, deny=deny))
        return f"{found.path}?{found.query}"

    async def sign_in(self, person: str, back: str = "/") -> httpx.Response:
        """Does all of it. Returns the console's last answer."""
        return await self.browser.get(await self.come_back(await self.begin(back), person))


@asynccontextmanager
async def visiting(
    api: Api, provider: IdentityProvider, client: str = "handrail-console", **options: Any
) -> AsyncIterator[Visitor]:
    """A browser at a console that is this client of the provider."""
    openid = Client(issuer=provider.issuer, client_id=client, secret=CLIENTS[client], resource="urn:handrail:api")
    async with browsing(api, openid=openid, **options) as browser:
        yield Visitor(browser)
