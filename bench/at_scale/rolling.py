"""What the broker has in memory while refunds pass through it, and leave it for the archive."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench.at_scale.broker_memory import Memory, Meter, configuration
from bench.at_scale.keeper import kept_by_a_process
from bench.at_scale.kept import broker, messages, set_up
from bench.at_scale.passing import Passing
from bench.meter import own_cpu_seconds
from handrail.cli.dev.processes import free_port
from handrail.mesh.bus import NatsBus
from handrail.mesh.streams import FLOW, KEY

HEAD = (
    "| refunds | events | events/s | open flows alone, MB more | then, median and highest, MB more | times "
    "| first fifth, last fifth, MB more | broker, % of a core | archive, index and retention, % |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)

SERIES = (
    "| | s | events | resident MB | heap in use MB | Go collects at MB | in FLOW | of them finished | in KEY |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)

OPEN = 10_000
_PURGES_A_SECOND = 1_000
_SETTLED_SECONDS = 150.0
"""Until the broker has let go of what it keeps for two minutes after it was needed, and collected its garbage."""

_WARM_SECONDS = 120.0
"""Flows wait for a minute before they leave: what comes before is no steady state."""

_LOOK_SECONDS = 5.0
_TOLD_SECONDS = 30.0


class Look(NamedTuple):
    """The broker at a time: seconds since the first refund of a part, its messages, and how many are of finished
    refunds, which wait for their purge."""

    seconds: float
    events: int
    memory: Memory
    in_flow: int
    finished: int
    in_key: int

    def row(self, name: str) -> str:
        """A row of the series."""
        return (
            f"| {name} | {self.seconds:.0f} | {self.events:,} | {self.memory.resident:.0f} | {self.memory.heap:.0f} "
            f"| {self.memory.goal:.0f} | {self.in_flow:,} | {self.finished:,} | {self.in_key:,} |"
        )


class Rolling(NamedTuple):
    """What the broker had in memory: empty, with the open flows, and after that; and what it took of a core."""

    name: str
    events: int
    rate: float
    empty: float
    opened: float
    later: list[Look]
    broker: float
    keeper: float

    def row(self) -> str:
        """A row of the table."""
        warm = [look for look in self.later if look.seconds >= _WARM_SECONDS] or self.later
        seen = [look.memory.resident - self.empty for look in warm]
        alone, median, fifth = self.opened - self.empty, statistics.median(seen), max(1, len(seen) // 5)
        return (
            f"| {self.name} | {self.events:,} | {self.rate:.0f} | {alone:.0f} | {median:.0f}, {max(seen):.0f} "
            f"| {median / alone:.1f} | {statistics.median(seen[:fifth]):.0f}, {statistics.median(seen[-fifth:]):.0f} "
            f"| {self.broker:.0%} | {self.keeper:.0%} |"
        )


@dataclass(slots=True)
class _Watch:
    """Looks at the broker again and again, and tells now and then what it saw."""

    name: str
    admin: NatsBus
    meter: Meter
    passing: Passing
    tell: Callable[[str], None]
    seen: list[Look] = field(default_factory=list)

    async def run(self) -> None:
        began, told = time.monotonic(), 0.0
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.seen.append(await self._look(time.monotonic() - began))
            if self.seen[-1].seconds >= told:
                self.tell(self.seen[-1].row(self.name))
                told += _TOLD_SECONDS

    async def _look(self, seconds: float) -> Look:
        in_flow, in_key = await messages(self.admin, FLOW), await messages(self.admin, KEY)
        finished = max(0, in_flow - self.passing.unfinished)
        return Look(seconds, self.passing.stored, await self.meter.read(), in_flow, finished, in_key)


async def measure(*, events: int, keyed: bool, rate: float, tell: Callable[[str], None]) -> Rolling:
    """Has so many events pass through, `rate` in a second, with a broker of its own. `tell` gets rows of the series."""
    port = free_port()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        server = stack.enter_context(broker(folder, extra=configuration(port)))
        admin = await stack.enter_async_context(await set_up(server))
        meter, name = Meter(server.pid, port), "keyed" if keyed else "unkeyed"
        passing = Passing(admin, open_at_once=OPEN, keyed=keyed)

        def watch(part: str) -> _Watch:
            return _Watch(f"{name}, {part}", admin, meter, passing, tell)

        # The process is there before, so that what its connections and durables take counts as empty.
        keeper = stack.enter_context(kept_by_a_process(server, folder, rate=_PURGES_A_SECOND))
        empty = await _settled(watch("empty"))
        await passing.begin()
        opened = await _settled(watch("open flows alone"))
        later, began = watch("passing"), time.monotonic()
        before = [own_cpu_seconds([each]) for each in (server.pid, keeper)]
        task = asyncio.create_task(later.run())
        await passing.go_on(events=events, rate=rate)
        took = time.monotonic() - began
        used = [own_cpu_seconds([each]) - cpu for each, cpu in zip((server.pid, keeper), before, strict=True)]
        task.cancel()
        shares = [each / took for each in used]
        return Rolling(name, events, events / took, empty, opened, later.seen, *shares)


async def _settled(watch: _Watch) -> float:
    """What the broker has in memory once it has had time to clean up."""
    task = asyncio.create_task(watch.run())
    await asyncio.sleep(_SETTLED_SECONDS)
    task.cancel()
    return statistics.median(look.memory.resident for look in watch.seen[-5:])
