"""A broker with its users, its FLOW in an archive and an index, its flows handled, and retention."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import Engine

from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.permissions import VISIBILITY
from handrail.mesh.streams import FLOW, ensure_streams
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import DECIDE, TRACK
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.readers import EVERYTHING, ensure_reading
from handrail.visibility.archive.folder import Folder, LockedFolder
from handrail.visibility.follow.follower import Follower
from handrail.visibility.index.database import open_engine
from handrail.visibility.retention.policy import Policy
from handrail.visibility.retention.retention import Retention, Settings
from handrail.visibility.retention.shelf import Shelf
from tests.support.accounts import as_user, configuration
from tests.support.archived import mark
from tests.support.followed import covered
from tests.support.mesh import Mesh
from tests.support.nats_server import NatsServer, running_server
from tests.support.recorded_refunds import refund_template
from tests.support.waiting import until

AGE = timedelta(seconds=5)
"""How long flows stay after their last message, and messages until they are sealed."""

Login = Callable[[str], BusSettings]
"""How a user of the broker connects."""

_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Kept:
    """The broker, a connection of its user `admin`, the index, the archive, and retention, which nobody runs yet."""

    server: NatsServer
    admin: NatsBus
    engine: Engine
    archive: Folder
    retention: Retention

    async def until_kept(self) -> None:
        """Waits until index and archive have all that FLOW has."""
        last = int((await self.admin.request_json(f"$JS.API.STREAM.INFO.{FLOW}"))["state"]["last_seq"])
        await until(lambda: min(covered(self.engine), mark(self.archive)) >= last, within=_SECONDS)


@asynccontextmanager
async def kept(folder: Path, *, rate: int) -> AsyncIterator[Kept]:
    """Runs all of it in this process while the block runs. At most `rate` flows are purged in a second."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(broker(folder))
        admin = await stack.enter_async_context(await set_up(server))
        login = partial(as_user, server)
        engine, archive, retention = await stack.enter_async_context(keeping(login, folder, rate=rate))
        yield Kept(server, admin, engine, archive, retention)


@contextmanager
def broker(folder: Path, *, extra: str = "") -> Iterator[NatsServer]:
    """Runs a broker with its users while the block runs. `extra` is more of its configuration."""
    accounts = configuration(refund_template().proto)
    with running_server(folder / "nats", accounts=accounts, extra=extra) as server:
        yield server


async def set_up(server: NatsServer) -> NatsBus:
    """Creates the streams, stores the template, and returns a connection of the user `admin`: close it after use."""
    admin = await NatsBus.connect(as_user(server, "admin"))
    await ensure_streams(admin)
    await Mesh(admin, Catalog(admin)).put(refund_template())
    await ensure_reading(admin, VISIBILITY, [EVERYTHING])
    return admin


async def messages(admin: NatsBus, stream: str) -> int:
    """How many messages a stream has."""
    return int((await admin.request_json(f"$JS.API.STREAM.INFO.{stream}"))["state"]["messages"])


@asynccontextmanager
async def keeping(login: Login, folder: Path, *, rate: int) -> AsyncIterator[tuple[Engine, LockedFolder, Retention]]:
    """Archives and indexes FLOW, and handles its flows, while the block runs. Gives retention, for the block to run."""
    async with AsyncExitStack() as stack:

        async def user(name: str) -> NatsBus:
            return await stack.enter_async_context(await NatsBus.connect(login(name)))

        coordinator, visibility, retention = (
            await user("coordinator"),
            await user("visibility"),
            await user("retention"),
        )
        for durable in (DECIDE, TRACK):
            pull = await coordinator.pull(FLOW, durable, in_flight=256, on_delivery=lambda delivery: delivery.ack())
            stack.push_async_callback(pull.stop)
        engine = open_engine(f"sqlite:///{folder}/index.db")
        stack.callback(engine.dispose)
        archive = stack.enter_context(LockedFolder(folder / "archive"))
        stopping = asyncio.Event()
        follower = asyncio.create_task(Follower(visibility, engine, archive, age=AGE).run(stopping))
        shelf = Shelf(archive, engine, FlowStore(visibility, Catalog(visibility)))
        settings = Settings(Policy(AGE, least=AGE), rate=rate)
        try:
            yield engine, archive, Retention(retention, archive, engine, shelf, settings, holder="bench")
        finally:
            stopping.set()
            await follower
