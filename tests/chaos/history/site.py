"""The installation under test: servers, coordinators and workers, each a process that can be killed, stopped and
started again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc.aio

from handrail.cli.dev.processes import Child, stop
from handrail.cli.probe import serves
from handrail.coordinator.api.dev_tokens import KeyFiles, ensure_keys, mint
from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import FLOW, ensure_streams
from handrail.mesh.streams.catalog import Catalog
from tests.chaos.history import book
from tests.chaos.history.story import template
from tests.support.mesh import COORDINATORS, Mesh
from tests.support.nats_server import FreePorts, NatsServer, running_cluster, running_server

ROOT = Path(__file__).parents[3]
_PATH = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
_READY = timedelta(seconds=90)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The size of an installation, and its timeouts."""

    servers: int = 3
    coordinators: int = 2
    workers: int = 2
    """Processes of each of the two agents."""
    timeout: timedelta = timedelta(seconds=20)
    """The timeout of each step and undo."""
    ack_wait: timedelta = timedelta(seconds=30)
    sweep: timedelta = timedelta(seconds=5)


class Site:
    """A running installation, created by `running_site`."""

    def __init__(self, folder: Path, size: Size, servers: Sequence[NatsServer]) -> None:
        self.folder = folder
        self.size = size
        self.servers = tuple(servers)
        self.keys: KeyFiles = ensure_keys(folder / "keys")
        self.book = folder / "book.sqlite"
        ports = FreePorts(size.coordinators)
        self.addresses = tuple(f"127.0.0.1:{port}" for port in ports.numbers)
        ports.release()
        self.coordinators = [self._coordinator(number) for number in range(size.coordinators)]
        self.workers = [self._worker(name, number) for name in ("desk", "ledger") for number in range(size.workers)]

    @property
    def settings(self) -> BusSettings:
        """The connection settings of a broker client."""
        urls = tuple(server.url for server in self.servers)
        return BusSettings(servers=urls, name="admin", connect_timeout=_READY)

    def token(self, name: str, *roles: str) -> str:
        """A person's token."""
        return mint(self.keys.private, name, roles=roles)

    async def prepare(self) -> None:
        """Stores the flow type and starts everything."""
        book.create(self.book)
        async with await NatsBus.connect(self.settings) as bus:
            await _until(lambda: ensure_streams(bus, replicas=self.size.servers))
            mesh = Mesh(bus, Catalog(bus))
            await mesh.put(template(int(self.size.timeout.total_seconds())))
            for durable in (*COORDINATORS, "desk", "ledger"):
                await mesh.set_ack_wait(durable, self.size.ack_wait)
        for child in (*self.coordinators, *self.workers):
            child.start()
        for address in self.addresses:
            await self.serving(address)

    async def leader(self) -> NatsServer:
        """The server that leads the stream FLOW."""
        async with await NatsBus.connect(self.settings) as bus:
            info = await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}")
        name = (info.get("cluster") or {}).get("leader")
        return next((server for server in self.servers if server.name == name), self.servers[0])

    async def serving(self, address: str) -> None:
        """Waits until a coordinator serves."""

        async def ask() -> None:
            with grpc.insecure_channel(address) as channel:
                if not await asyncio.to_thread(serves, channel, timedelta(seconds=2)):
                    raise TimeoutError(f"{address} does not serve")

        await _until(ask)

    def restart(self) -> None:
        """Starts everything that has ended, and resumes everything that is paused."""
        for server in self.servers:
            server.ensure_running()
        for child in (*self.coordinators, *self.workers):
            child.send(signal.SIGCONT)
            if not child.is_running:
                child.start()

    def fallen(self) -> list[str]:
        """The processes that ended on their own: name, exit code, and the end of the log."""
        return [
            f"{child.name} ended by itself with {child.exit_code}: {child.last_words()}"
            for child in (*self.coordinators, *self.workers)
            if not child.is_running
        ]

    def _coordinator(self, number: int) -> Child:
        return self._child(
            f"coordinator-{number}",
            ["coordinator", "--listen", self.addresses[number], "--replicas", str(self.size.servers),
             "--sweep-interval", f"{self.size.sweep.total_seconds():g}s"],
            {"HANDRAIL_JWT_PUBLIC_KEYS": str(self.keys.public)},
        )  # fmt: skip

    def _worker(self, name: str, number: int) -> Child:
        agent = ["agent", "run", f"tests.chaos.history.agents:{name}"]
        return self._child(f"{name}-{number}", agent, {"CHAOS_BOOK": str(self.book), "PYTHONPATH": _PATH})

    def _child(self, name: str, arguments: Sequence[str], environment: dict[str, str]) -> Child:
        plain = {key: value for key, value in os.environ.items() if not key.startswith(("HANDRAIL_", "OTEL_"))}
        broker = {"HANDRAIL_NATS": ",".join(server.url for server in self.servers)}
        return Child(
            name,
            [sys.executable, "-m", "handrail.cli.main", *arguments],
            log=self.folder / "logs" / f"{name}.log",
            environment={**plain, **broker, **environment},
            folder=ROOT,
        )


async def _until(attempt: Callable[[], Awaitable[object]]) -> None:
    """Retries until it succeeds: a cluster has to elect leaders first, and a coordinator has to connect."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _READY.total_seconds()
    while True:
        try:
            await attempt()
        except (HandrailError, TimeoutError):
            if loop.time() > deadline:
                raise
            await asyncio.sleep(0.3)
        else:
            return


@contextmanager
def _servers(folder: Path, number: int) -> Iterator[Sequence[NatsServer]]:
    folder.mkdir(parents=True, exist_ok=True)
    if number == 1:
        with running_server(folder) as server:
            yield (server,)
    else:
        with running_cluster(folder) as cluster:
            yield cluster.servers


@asynccontextmanager
async def running_site(folder: Path, size: Size) -> AsyncIterator[Site]:
    """Runs an installation while the block runs. Its data, logs and ledger are in `folder`."""
    with _servers(folder / "nats", size.servers) as servers:
        site = Site(folder, size, servers)
        try:
            await site.prepare()
            yield site
        finally:
            everything = (*site.workers, *site.coordinators)
            for child in everything:
                child.send(signal.SIGCONT)
            stop(everything, grace=10.0)
