"""Seeded faults: what is killed, paused or restarted, in which order and for how long."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from handrail.cli.dev.processes import Child, stop
from handrail.mesh.errors import HandrailError
from tests.chaos.history.site import Site
from tests.support.nats_server import NatsServer

_GRACE = 12.0
_BEYOND = 3.0
"""Seconds that something may stay away beyond the planned time."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One injected fault, in seconds since 1970. At `until` everything was running again."""

    kind: str
    what: str
    since: float
    until: float


class Faults:
    """Injects faults one after the other. Every kind is used before one repeats."""

    def __init__(self, site: Site, chance: random.Random, *, pause: tuple[float, float]) -> None:
        self._site = site
        self._chance = chance
        self._pause = pause
        self._turn: list[str] = []
        self.done: list[Fault] = []
        self.fell: list[str] = []
        """Processes that ended on their own, each with the end of its log."""

    async def run(self, stopping: asyncio.Event, tell: Callable[[str], None]) -> None:
        """Injects faults until `stopping` is set, and ends the last one."""
        kinds = self._kinds()
        while not stopping.is_set():
            await asyncio.sleep(self._chance.uniform(*self._pause))
            if stopping.is_set():
                return
            self.fell += self._site.fallen()
            if not self._turn:
                self._turn = self._chance.sample(list(kinds), len(kinds))
            kind = self._turn.pop()
            since = time.time()
            what = await kinds[kind]()
            self._site.restart()
            self.done.append(Fault(kind, what, since, time.time()))
            tell(f"{kind}: {what}, {time.time() - since:.1f} s")

    def _kinds(self) -> Mapping[str, Callable[[], Awaitable[str]]]:
        site = self._site
        alone = {
            "kill worker": lambda: self._kill(site.workers),
            "stop worker": lambda: self._stop(site.workers),
            "restart worker": lambda: self._restart(site.workers),
            "kill coordinator": lambda: self._kill(site.coordinators),
            "stop coordinator": lambda: self._stop(site.coordinators),
            "restart coordinator": lambda: self._restart(site.coordinators),
            "kill server": lambda: self._kill_server(self._chance.choice(site.servers)),
            "stop server": lambda: self._stop_server(self._chance.choice(site.servers)),
            "restart server": lambda: self._restart_server(self._chance.choice(site.servers)),
            "no coordinator": self._no_coordinator,
            "whole tree": self._whole_tree,
        }
        return {**alone, "kill leader": self._kill_leader} if len(site.servers) > 1 else alone

    async def _kill(self, children: list[Child]) -> str:
        child = self._chance.choice(children)
        child.kill()
        return child.name

    async def _stop(self, children: list[Child]) -> str:
        """Pauses a process beyond the ack wait: its messages are delivered to another one meanwhile."""
        child = self._chance.choice(children)
        child.send(signal.SIGSTOP)
        await asyncio.sleep(self._site.size.ack_wait.total_seconds() + _BEYOND)
        return child.name

    async def _restart(self, children: list[Child]) -> str:
        child = self._chance.choice(children)
        await asyncio.to_thread(stop, [child], grace=_GRACE)
        return child.name

    async def _kill_server(self, server: NatsServer) -> str:
        server.kill()
        await asyncio.sleep(self._chance.uniform(0, 2))
        return server.name

    async def _stop_server(self, server: NatsServer) -> str:
        server.pause()
        await asyncio.sleep(self._chance.uniform(2, 8))
        return server.name

    async def _restart_server(self, server: NatsServer) -> str:
        await asyncio.to_thread(server.stop)
        return server.name

    async def _kill_leader(self) -> str:
        try:
            leader = await self._site.leader()
        except HandrailError:
            leader = self._chance.choice(self._site.servers)
        return await self._kill_server(leader)

    async def _no_coordinator(self) -> str:
        """Stops all of them for longer than a step's timeout."""
        for child in self._site.coordinators:
            child.kill()
        await asyncio.sleep(self._site.size.timeout.total_seconds() + _BEYOND)
        return "all of them"

    async def _whole_tree(self) -> str:
        """Kills everything at once, as when a machine fails."""
        for child in (*self._site.coordinators, *self._site.workers):
            child.kill()
        for server in self._site.servers:
            server.kill()
        return "everything"
