"""What the broker has in memory while refunds pass through it, and leave it for the archive."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench.at_scale.kept import Kept, kept
from bench.at_scale.passing import Passing
from handrail.mesh.streams import FLOW, KEY

HEAD = (
    "| refunds | events | empty MB | open flows alone, MB more | then, median and highest, MB more | times | in FLOW "
    "| in KEY |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)

OPEN = 10_000
_EVENTS_A_SECOND = 200.0
_PURGES_A_SECOND = 200
_SETTLED_SECONDS = 20.0
_LOOK_SECONDS = 1.0


class Rolling(NamedTuple):
    """What the broker had in memory, in MB: empty, with the open flows, and in the last half of the time after that.
    And the messages that FLOW and KEY had in the end.
    """

    name: str
    events: int
    empty: float
    opened: float
    later: list[float]
    in_flow: int
    in_key: int

    def row(self) -> str:
        """A row of the table."""
        alone, median = self.opened - self.empty, statistics.median(self.later) - self.empty
        return (
            f"| {self.name} | {self.events:,} | {self.empty:.0f} | {alone:.0f} | {median:.0f}, "
            f"{max(self.later) - self.empty:.0f} | {median / alone:.1f} | {self.in_flow:,} | {self.in_key:,} |"
        )


async def measure(*, events: int, keyed: bool) -> Rolling:
    """Has so many events pass through, with a broker of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with kept(Path(folder), rate=_PURGES_A_SECOND) as installation:
            return await _measure(installation, events, keyed)


async def _measure(installation: Kept, events: int, keyed: bool) -> Rolling:
    empty = await _settled(installation)
    passing = Passing(installation.admin, open_at_once=OPEN, keyed=keyed)
    await passing.begin()
    opened = await _settled(installation)
    stopping, seen = asyncio.Event(), list[float]()
    work = asyncio.create_task(installation.retention.run(stopping))
    watch = asyncio.create_task(_watch(installation, seen))
    began = time.perf_counter()
    await passing.go_on(events=events, rate=_EVENTS_A_SECOND)
    took = time.perf_counter() - began
    watch.cancel()
    found = await installation.messages(FLOW), await installation.messages(KEY)
    stopping.set()
    await work
    name = f"{'keyed' if keyed else 'unkeyed'}, {(passing.begun - OPEN) / took:.0f} a second"
    return Rolling(name, events, empty, opened, seen[len(seen) // 2 :], *found)


async def _settled(installation: Kept) -> float:
    """What the broker has in memory once it has had time to clean up."""
    seen: list[float] = []
    watch = asyncio.create_task(_watch(installation, seen))
    await asyncio.sleep(_SETTLED_SECONDS)
    watch.cancel()
    return statistics.median(seen[len(seen) // 2 :])


async def _watch(installation: Kept, seen: list[float]) -> None:
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        seen.append(installation.memory_mb())
