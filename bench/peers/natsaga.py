"""natsaga under load: a nats-server, PostgreSQL, and its own workers. It has no approvals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.bare import answers, server
from bench.contender import ROOT
from bench.figures import SERVER
from bench.meter import Processes
from bench.peers import interpreter
from bench.peers.by_lines import ByLines
from bench.peers.database import Database
from handrail.cli.dev.processes import Child, free_port, stop, wait_until

_START_SECONDS = 30.0
_GRACE = 5.0
_ROLES = ("listener", "relay", "agents")


class Natsaga:
    """Use it as a context, then `open` it."""

    def __init__(self, folder: Path, peers: Path, *, sync_always: bool) -> None:
        self.timings: dict[str, list[float]] = {}
        self._folder = folder
        self._python = str(interpreter(peers))
        self._port = free_port()
        self._url = f"nats://127.0.0.1:{self._port}"
        self._server = server(folder, self._url, sync_always=sync_always)
        self._database = Database(folder)
        self._flows = ByLines(0.0)
        self._workers: dict[str, Child] = {}

    def __enter__(self) -> Natsaga:
        try:
            self._server.start()
            wait_until(lambda: answers(self._port, b"INFO"), self._server, seconds=_START_SECONDS)
            self._database.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        stop([*self._workers.values(), self._server], grace=_GRACE)
        self._database.stop()

    async def open(self) -> None:
        """Starts the process that begins sagas, which creates streams and tables, then the workers."""
        await self._flows.open(*self._command("client"), log=self._folder / "client.log")
        for role in _ROLES:
            self._workers[role] = Child(role, self._command(role), log=self._folder / f"{role}.log", folder=ROOT)
            self._workers[role].start()

    def begin(self, work: str, on_end: Callable[[], None]) -> None:
        """Starts a flow."""
        self._flows.begin(work, on_end)

    def processes(self) -> Processes:
        """The servers, the workers, and the process that begins sagas, which looks for their ends in the database."""
        workers = {role: [child.pid] for role, child in self._workers.items()}
        return {SERVER: [self._server.pid], "postgres": [self._database.pid], **workers, "starter": [self._flows.pid]}

    async def settled(self) -> None:
        """A flow has ended when the database says so."""

    async def close(self) -> None:
        """Ends the process that begins sagas."""
        await self._flows.close()

    def _command(self, role: str) -> list[str]:
        database = self._database.url("postgres", "postgresql+asyncpg")
        return [self._python, "-m", "bench.peers.natsaga_roles", role, self._url, database]
