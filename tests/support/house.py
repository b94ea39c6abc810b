"""A whole installation for one test: a server with generated permissions, one flow type, agents and coordinators that
start and stop, and people who call over gRPC. It combines the parts of this kit: `accounts`, `mesh`, `api`, `people`
and `processes`. A test that needs only some of them uses them directly.
"""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from handrail.agents import Agent
from handrail.agents.worker import Worker
from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.streams import ensure_streams, start_flow
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import pack
from tests.support.accounts import as_user, guarded_server, seed_file
from tests.support.api import running_api
from tests.support.mesh import COORDINATORS, Mesh, workers
from tests.support.nats_server import NatsServer
from tests.support.people import People
from tests.support.processes import worker_process


class House:
    """A server with the streams and an active template. `mesh` reads and writes as the coordinator's user."""

    def __init__(self, server: NatsServer, folder: Path, template: Template, stack: AsyncExitStack) -> None:
        self.server = server
        self.folder = folder
        self.template = template
        self._stack = stack

    async def prepare(self) -> None:
        """Creates streams and durables and activates the template, as a coordinator does once."""
        bus = await self.connect("coordinator")
        await ensure_streams(bus)
        self.mesh = Mesh(bus, Catalog(bus))
        await self.mesh.put(self.template)

    def settings(self, user: str) -> BusSettings:
        """The connection settings of this user."""
        return as_user(self.server, user)

    async def connect(self, user: str) -> NatsBus:
        """A bus connected as this user, closed when the test ends."""
        return await self._stack.enter_async_context(await NatsBus.connect(self.settings(user)))

    @asynccontextmanager
    async def working(self, agents: Iterable[Agent], *, of_each: int = 1) -> AsyncIterator[list[Worker]]:
        """Runs agents in this process, each as its own user."""
        async with workers(self.settings, agents, of_each=of_each) as running:
            yield running

    @asynccontextmanager
    async def coordinator(self, **settings: Any) -> AsyncIterator[People]:
        """Runs a coordinator that decides and serves while the block runs."""
        async with (
            await NatsBus.connect(self.settings("coordinator")) as bus,
            running_api(bus, self.folder, **settings) as api,
        ):
            yield People(api)

    def process(self, user: str, path: str, **environment: str) -> subprocess.Popen[bytes]:
        """Starts a worker of the agent `module:agent` in its own process until the test ends. Its log is in `log`."""
        account = {"HANDRAIL_NATS_NKEY_FILE": str(seed_file(self.server, user))}
        started = worker_process(self.server, path, log=self.log(user), environment={**account, **environment})
        return self._stack.enter_context(started)

    def log(self, user: str) -> Path:
        """The log of the processes of a user's agent."""
        return self.folder / f"{user}.log"

    async def start(self, data: Message, *, by: str = "detection", key: str = "") -> str:
        """Starts a flow as this agent, and returns its flow id."""
        started = await start_flow.start(self.mesh.bus, self.template, source=by, data=pack(data), key=key)
        return started.flow_id

    async def deliver_again_soon(self) -> None:
        """Makes the broker redeliver to agents and coordinators after one second without an ack, instead of thirty."""
        for durable in {*COORDINATORS, *(step.agent for step in self.template.steps.values())}:
            await self.mesh.set_ack_wait(durable, timedelta(seconds=1))

    async def set_limit(self, stream: str, messages: int) -> None:
        """Limits how many messages a stream holds; -1 for no limit."""
        config = (await self.mesh.bus.request_json(f"$JS.API.STREAM.INFO.{stream}"))["config"]
        admin = await self.connect("admin")
        await admin.request_json(f"$JS.API.STREAM.UPDATE.{stream}", {**config, "max_msgs": messages})

    async def until_quiet(self) -> None:
        """Waits until every message has been delivered and acknowledged."""
        await self.mesh.until_settled(*COORDINATORS)


@asynccontextmanager
async def building(folder: Path, template: Template) -> AsyncIterator[House]:
    """Runs an installation with this flow type while the block runs."""
    with guarded_server(folder / "nats", template.proto) as server:
        async with AsyncExitStack() as stack:
            house = House(server, folder, template, stack)
            await house.prepare()
            yield house
