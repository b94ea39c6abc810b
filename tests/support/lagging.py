"""Readers that lag: a cluster in which one server can be cut off from the others and still serves its own clients, and
a bus whose reads are answered by a lagging replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from handrail.mesh.bus import Bus, NatsBus, Page, RawMessage
from handrail.mesh.bus.api import API_TIMEOUT
from handrail.mesh.bus.direct_get import READ_TIMEOUT
from handrail.testing.memory import MemoryBus
from tests.support.nats_server import FreePorts, NatsCluster, NatsServer
from tests.support.waiting import until

_CHUNK = 1 << 16


class Behind(Bus):
    """A mixin for a bus: its direct reads are answered by a replica that lacks the newest messages.

    `lag` says up to which sequence the replica has messages, and how many reads it answers before it has caught up.
    The leader answers publishes and reads on the leader.
    """

    _as_of = 0
    _left = 0

    def lag(self, *, as_of: int = 0, reads: int = 3) -> None:
        """Answers this many reads as of this sequence, beginning with the next."""
        self._as_of, self._left = as_of, reads

    @property
    def reads_left(self) -> int:
        """How many reads the lagging replica will still answer."""
        return self._left

    async def direct_get(
        self,
        stream: str,
        *,
        multi_last: Sequence[str],
        from_seq: int = 0,
        up_to_seq: int | None = None,
        timeout: timedelta = READ_TIMEOUT,
    ) -> Page:
        """Reads as of the replica's sequence."""
        page = await super().direct_get(  # type: ignore[safe-super]  # the bus's that this is mixed into
            stream, multi_last=multi_last, from_seq=from_seq, up_to_seq=up_to_seq, timeout=timeout
        )
        return self._cut(page)

    async def read_forward(
        self, stream: str, subject_filter: str, *, from_sequence: int, limit: int, timeout: timedelta = READ_TIMEOUT
    ) -> Page:
        """Reads as of the replica's sequence."""
        page = await super().read_forward(  # type: ignore[safe-super]
            stream, subject_filter, from_sequence=from_sequence, limit=limit, timeout=timeout
        )
        return self._cut(page)

    async def last(self, stream: str, subject_filter: str, *, timeout: timedelta = READ_TIMEOUT) -> RawMessage | None:
        """Reads as of the replica's sequence."""
        page = await self.direct_get(stream, multi_last=[subject_filter], timeout=timeout)
        return page.messages[-1] if page.messages else None

    async def by_sequence(self, stream: str, sequence: int, *, timeout: timedelta = READ_TIMEOUT) -> RawMessage | None:
        """Reads as of the replica's sequence."""
        message = await super().by_sequence(stream, sequence, timeout=timeout)  # type: ignore[safe-super]
        page = self._cut(Page((message,) if message else ()))
        return page.messages[0] if page.messages else None

    async def request_json(
        self, api_subject: str, payload: Mapping[str, Any] | None = None, *, timeout: timedelta = API_TIMEOUT
    ) -> dict[str, Any]:
        """Calls the API. A consumer that begins behind the replica's sequence finds nothing there."""
        answer = await super().request_json(api_subject, payload, timeout=timeout)  # type: ignore[safe-super]
        begins_at = (payload or {}).get("config", {}).get("opt_start_seq", 0)
        return {**answer, "num_pending": 0} if self._left and begins_at > self._as_of else answer

    def _cut(self, page: Page) -> Page:
        if not self._left:
            return page
        self._left -= 1
        known = tuple(message for message in page.messages if message.sequence <= self._as_of)
        return replace(page, messages=known, up_to_sequence=min(page.up_to_sequence, self._as_of), pending=0)


class BehindNatsBus(Behind, NatsBus):
    """A bus to a server whose replica lags."""


class BehindMemoryBus(Behind, MemoryBus):
    """A bus in memory whose replica lags."""


class Wires:
    """TCP connections that are relayed by this process and can be paused together."""

    def __init__(self) -> None:
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []

    async def lay(self, port: int, *, to: int) -> None:
        """Listens on a port and forwards everything to another."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", to)
            except OSError:
                writer.close()
                return
            for source, target in ((reader, far_writer), (far_reader, writer)):
                self._pumps.add(asyncio.create_task(self._pump(source, target)))

        self._servers.append(await asyncio.start_server(connected, "127.0.0.1", port))

    def hold(self) -> None:
        """Pauses all traffic; nothing is lost."""
        self._flowing.clear()

    def release(self) -> None:
        """Resumes all traffic."""
        self._flowing.set()

    async def close(self) -> None:
        """Closes all connections."""
        for server in self._servers:
            server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        await asyncio.gather(*(server.wait_closed() for server in self._servers))

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(_CHUNK):
                await self._flowing.wait()
                target.write(data)
                await target.drain()
        except OSError:
            """Closes this end because the other one is closed."""
        finally:
            target.close()


@asynccontextmanager
async def lagging_cluster(folder: Path) -> AsyncIterator[tuple[NatsCluster, Wires]]:
    """Three servers; all traffic between the last one and the others goes through the wires."""
    ports = FreePorts(9)
    clients, routes, wired = ports.numbers[:3], ports.numbers[3:6], ports.numbers[6:]
    others = [routes[:2], routes[:2], wired[:2]]
    wires = Wires()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(wires.close)
        ports.release()
        for outside, inside in zip(wired, routes, strict=True):
            await wires.lay(outside, to=inside)
        servers: list[NatsServer] = []
        for number, (port, route, known) in enumerate(zip(clients, routes, others, strict=True)):
            listed = ", ".join(f'"nats://127.0.0.1:{each}"' for each in known)
            # Servers learn of each other by the advertised addresses, so these have to lead through the wires, too.
            reached = f'listen: "127.0.0.1:{route}", advertise: "127.0.0.1:{wired[number]}"'
            server = NatsServer(
                folder,
                port=port,
                name=f"n{number + 1}",
                extra=f"cluster {{ name: test, {reached}, routes: [{listed}] }}",
            )
            if number == 2:  # the first two servers must have found each other on their own
                await until(lambda: all("Route connection created" in each.log.read_text() for each in servers))
            servers.append(server)
            stack.callback(server.kill)
            server.launch()
        for server in servers:
            await asyncio.to_thread(server.wait_ready)
        yield NatsCluster(servers), wires
