"""A broker with three readers: `analytics` and `watcher` read flows of the type "refund", `archive` of "refund" and
"loan".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace

from handrail.mesh.bus import NatsBus, RawMessage
from handrail.mesh.permissions import Reader
from handrail.mesh.streams import FLOW, ensure_streams
from handrail.mesh.streams.readers import ensure_reader
from handrail.mesh.streams.reading import read
from tests.support.accounts import as_user, asked_and_granted, configuration
from tests.support.nats_server import NatsServer

READERS = (Reader("analytics", ("refund",)), Reader("archive", ("refund", "loan")), Reader("watcher", ("refund",)))


def accounts() -> str:
    """The broker's accounts."""
    return configuration(asked_and_granted(), readers=READERS)


def subject(flow_type: str, number: int) -> str:
    """The subject of the message with this number."""
    return f"flow.{flow_type}.{'a' * 32}.event.desk.{number:032x}.shop.v1.Asked"


class ReadBroker:
    """One server, or three, with the streams and the readers' durables."""

    def __init__(self, servers: Sequence[NatsServer], stack: AsyncExitStack) -> None:
        self.servers = tuple(servers)
        self._stack = stack
        self._number = 0

    async def prepare(self) -> None:
        """Starts killed servers, deletes what is there, and creates the streams and the durables."""
        for server in self.servers:
            server.ensure_running()
        admin = await self.connect("admin")
        for name in (await admin.request_json("$JS.API.STREAM.NAMES"))["streams"] or ():
            await admin.request_json(f"$JS.API.STREAM.DELETE.{name}")
        self._coordinator = await self.connect("coordinator")
        await ensure_streams(self._coordinator, replicas=len(self.servers))
        setup = await self.connect("setup")
        for reader in READERS:
            await ensure_reader(setup, reader)

    async def connect(self, user: str) -> NatsBus:
        """A bus that knows all servers."""
        urls = tuple(server.url for server in self.servers)
        bus = await NatsBus.connect(replace(as_user(self.servers[0], user), servers=urls))
        return await self._stack.enter_async_context(bus)

    async def store(self, flow_type: str, *, body: bytes = b"body") -> RawMessage:
        """Stores a message."""
        self._number += 1
        return await self.put(subject(flow_type, self._number), body)

    async def put(self, subject: str, body: bytes) -> RawMessage:
        """Stores a message on this subject."""
        sequence = await self._coordinator.publish(subject, body)
        stored = await self._coordinator.last_on_leader(FLOW, subject)
        assert stored is not None
        assert stored.sequence == sequence
        return stored

    async def store_many(self, number: int, *flow_types: str) -> list[RawMessage]:
        """Stores messages of these types in turn."""
        return [await self.store(flow_types[index % len(flow_types)]) for index in range(number)]


@asynccontextmanager
async def prepared(servers: Sequence[NatsServer]) -> AsyncIterator[ReadBroker]:
    """A broker on these servers that holds nothing of flows yet."""
    async with AsyncExitStack() as stack:
        broker = ReadBroker(servers, stack)
        await broker.prepare()
        yield broker


@asynccontextmanager
async def reading(bus: NatsBus, *, after: int = 0) -> AsyncIterator[list[RawMessage]]:
    """What this reader has read so far; it goes on while the block runs."""
    found: list[RawMessage] = []

    async def go_on() -> None:
        async for message in read(bus, bus.name, after=after):
            found.append(message)

    task = asyncio.create_task(go_on())
    try:
        yield found
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
