"""A console for tests: its application in this process, or `handrail console` as a process with a port."""

from __future__ import annotations

import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.applications import Starlette

from handrail.console.app import create_app
from handrail.console.options import Options
from handrail.console.web.console import Console
from tests.support.api import Api
from tests.support.dev import HANDRAIL, environment
from tests.support.nats_server import die_with_parent

ORIGIN = "http://127.0.0.1:7080"

_FORM_TOKEN = re.compile(r'name="form_token" value="([^"]+)"')


@dataclass
class Browser:
    """A client of a console in this process, with cookies; it follows no redirects."""

    app: Starlette
    client: httpx.AsyncClient

    @property
    def console(self) -> Console:
        """The console behind it."""
        found: Console = self.app.state.console
        return found

    async def sign_in(self, token: str, **fields: str) -> httpx.Response:
        """Sends the form of the sign-in page."""
        return await self.post("/sign-in", token=token, **fields)

    async def post(self, path: str, **fields: str) -> httpx.Response:
        """Sends a form as the console's own pages do."""
        return await self.client.post(path, data=fields, headers={"origin": ORIGIN})

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """Asks for a page."""
        return await self.client.get(path, headers=headers)

    async def page(self, path: str) -> str:
        """The text of a page, which has to be there."""
        answer = await self.get(path)
        assert answer.status_code == 200, f"{answer.status_code} {answer.headers.get('location', '')} {answer.text}"
        return answer.text

    async def form_token(self) -> str:
        """The token of this session's forms."""
        found = _FORM_TOKEN.search(await self.page("/account"))
        assert found is not None
        return found[1]


@asynccontextmanager
async def browsing(api: Api, **options: Any) -> AsyncIterator[Browser]:
    """Runs a console for this coordinator while the block runs."""
    app = create_app(Options(**{"listen": "127.0.0.1:7080", "coordinator": api.address, **options}))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url=ORIGIN) as client,
    ):
        yield Browser(app, client)


@asynccontextmanager
async def another_browser(first: Browser) -> AsyncIterator[Browser]:
    """A browser without cookies at the same console."""
    transport = httpx.ASGITransport(first.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        yield Browser(first.app, client)


@contextmanager
def console_process(address: str, *arguments: str) -> Iterator[str]:
    """Runs `handrail console` for the coordinator at this address while the block runs. Yields its origin."""
    process = subprocess.Popen(
        [*HANDRAIL, "console", "--address", address, "--console-listen", "127.0.0.1:0", *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving on "), "the console did not start"
        yield line.removeprefix("serving on ").strip()
    finally:
        process.terminate()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()
