"""DBOS under load: PostgreSQL, and one process with the workflows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.meter import Processes
from bench.peers import interpreter
from bench.peers.by_lines import ByLines
from bench.peers.database import Database


class Dbos:
    """Use it as a context, then `open` it."""

    def __init__(self, folder: Path, peers: Path, park: float) -> None:
        self.timings: dict[str, list[float]] = {}
        self._python = interpreter(peers)
        self._log = folder / "dbos.log"
        self._database = Database(folder)
        self._flows = ByLines(park)

    def __enter__(self) -> Dbos:
        self._database.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._database.stop()

    async def open(self) -> None:
        """Starts the process with the workflows, which creates its tables."""
        command = (str(self._python), "-m", "bench.peers.dbos_flows", self._database.url("dbos"))
        await self._flows.open(*command, log=self._log)

    def begin(self, work: str, on_end: Callable[[], None]) -> None:
        """Starts a flow."""
        self._flows.begin(work, on_end)

    def processes(self) -> Processes:
        """The database and the workflows."""
        return {"postgres": [self._database.pid], "workflows": [self._flows.pid]}

    async def settled(self) -> None:
        """A flow has ended when its caller is told."""

    async def close(self) -> None:
        """Ends the process with the workflows."""
        await self._flows.close()
