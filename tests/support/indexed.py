"""A coordinator that reads lists from an index, which is served by a real server and follows a real stream."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from handrail.coordinator.lists.index import IndexSettings
from handrail.mesh.bus import NatsBus
from handrail.mesh.shared_secret import new_secret
from handrail.visibility.archive.folder import Folder
from handrail.visibility.retention.shelf_mark import ShelfMark
from handrail.visibility.serve.server import IndexServer, ServeSettings
from tests.support.api import Api, bearer, running_api
from tests.support.followed import following, until_covered


def secret_file(folder: Path, name: str = "secret") -> Path:
    """Returns a file with a secret, which is new if there was none."""
    file = folder / name
    if not file.exists():
        file.write_text(new_secret())
    return file


@asynccontextmanager
async def serving(
    bus: NatsBus,
    engine: Engine,
    secret: Path,
    *,
    port: int = 0,
    archive: Folder | None = None,
    mark: ShelfMark | None = None,
) -> AsyncIterator[int]:
    """Serves an index, and flows of an archive, while the block runs, and yields the port."""
    server = IndexServer(engine, bus, ServeSettings(address=f"127.0.0.1:{port}", secret=secret), archive, mark=mark)
    try:
        yield await server.start()
    finally:
        await server.stop()


@asynccontextmanager
async def asking(bus: NatsBus, folder: Path, *, port: int, secret: Path, **settings: Any) -> AsyncIterator[Api]:
    """Runs a coordinator that asks an index on this port. It decides nothing, unless told to."""
    index = IndexSettings(address=f"127.0.0.1:{port}", secret=secret)
    async with running_api(bus, folder, index=index, **{"decides": False, **settings}) as api:
        yield api


@asynccontextmanager
async def indexed_api(bus: NatsBus, engine: Engine, folder: Path, **settings: Any) -> AsyncIterator[Api]:
    """Runs a coordinator with an index that covers what FLOW has at the start of the block, and follows on."""
    secret = secret_file(folder)
    async with (
        following(bus, engine),
        serving(bus, engine, secret) as port,
        asking(bus, folder, port=port, secret=secret, **settings) as api,
    ):
        await until_covered(bus, engine)
        yield api


@contextmanager
def silent_server() -> Iterator[int]:
    """Takes connections on a port, and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


async def ask(api: Api, method: str, request: Any, answer: type[Any], *grants: str) -> Any:
    """Asks as a caller with these grants; without any, as one who may read everything."""
    token = api.token("vera", grants=grants) if grants else api.token("vera", "viewer")
    return await api.call(method, request, answer, metadata=bearer(token))


async def pages(api: Api, method: str, request: Any, answer: type[Any], field: str, *grants: str) -> list[Any]:
    """Returns the items of all pages. Raises AssertionError for a page that is too large or, but for a scan, short."""
    found: list[Any] = []
    while True:
        page = await ask(api, method, request, answer, *grants)
        items = list(getattr(page, field))
        assert len(items) <= request.page_size
        assert request.scan or not page.next_page_token or len(items) == request.page_size
        found += items
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token
