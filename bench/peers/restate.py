"""Restate under load: one server, and the workflow served by granian with two workers."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from bench.bare import answers
from bench.contender import ROOT
from bench.meter import Processes
from bench.peers import interpreter, restate_server
from bench.peers.http import HttpClient
from bench.tasks import Tasks
from handrail.cli.dev.processes import Child, free_port, stop, wait_until

_WORKERS = 2
_START_SECONDS = 60.0
_GRACE = 10.0

_EXPECTED = {
    "happy": {"done": ["detect", "enrich", "notify"], "undone": []},
    "compensated": {"done": ["detect", "enrich"], "undone": ["enrich", "detect"]},
    "approved": {"done": ["detect"], "undone": []},
}


class Restate:
    """Use it as a context, then `open` it. In `approved` a person answers `park` seconds after the start."""

    def __init__(self, folder: Path, peers: Path, park: float) -> None:
        self.timings: dict[str, list[float]] = defaultdict(list)
        self._park = park
        self._names = itertools.count(1)
        self._tasks = Tasks()
        self._ingress, self._admin, node, self._service = (free_port() for _ in range(4))
        config = folder / "restate.toml"
        config.write_text(
            f'base-dir = "{folder / "restate"}"\nnode-name = "bench"\ndisable-telemetry = true\n'
            f'bind-ip = "127.0.0.1"\nbind-port = {node}\nadvertised-host = "127.0.0.1"\nlisten-mode = "tcp"\n'
            f"[admin]\nbind-port = {self._admin}\n[ingress]\nbind-port = {self._ingress}\n"
        )
        self._server = Child(
            "restate-server",
            [str(restate_server(peers)), "-c", str(config), "--no-logo"],
            log=folder / "restate-server.log",
        )
        granian = [str(interpreter(peers)), "-m", "granian", "--interface", "asgi", "--http", "2", "--loop", "uvloop"]
        where = ["--workers", str(_WORKERS), "--host", "127.0.0.1", "--port", str(self._service), "--no-access-log"]
        self._sdk = Child(
            "granian", [*granian, *where, "bench.peers.restate_service:app"], log=folder / "granian.log", folder=ROOT
        )

    def __enter__(self) -> Restate:
        try:
            self._server.start()
            self._sdk.start()
            for port, child in ((self._ingress, self._server), (self._admin, self._server), (self._service, self._sdk)):
                wait_until(lambda port=port: answers(port), child, seconds=_START_SECONDS)  # type: ignore[misc]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        stop([self._sdk, self._server], grace=_GRACE)

    async def open(self) -> None:
        """Registers the service."""
        self._client = HttpClient(self._ingress)
        admin = HttpClient(self._admin)
        where = {"uri": f"http://127.0.0.1:{self._service}", "force": True}
        await admin.post("/deployments", json.dumps(where).encode())
        await admin.close()

    def begin(self, work: str, on_end: Callable[[], None]) -> None:
        """Starts a flow."""
        name = f"flow-{next(self._names)}"
        self._tasks.spawn(self._flow(work, name, on_end))
        if work == "approved":
            asyncio.get_running_loop().call_later(self._park, self._tasks.spawn, self._approve(name))

    def processes(self) -> Processes:
        """The server and the workers."""
        return {"restate-server": [self._server.pid], "sdk": [self._sdk.pid]}

    async def settled(self) -> None:
        """A flow has ended when its caller is told."""

    async def close(self) -> None:
        """Disconnects."""
        await self._client.close()

    async def _flow(self, work: str, name: str, on_end: Callable[[], None]) -> None:
        report = json.loads(await self._client.post(f"/Flow/{name}/run", json.dumps({"work": work}).encode()))
        if report != _EXPECTED[work]:
            raise RuntimeError(f"{work}: {report}")
        on_end()

    async def _approve(self, name: str) -> None:
        began = time.perf_counter()
        await self._client.post(f"/Flow/{name}/approve", b"true")
        self.timings["vote to answer"].append(time.perf_counter() - began)
