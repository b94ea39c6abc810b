"""What it takes to purge refunds that are over: judged, purged, and looked at again."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench.at_scale.kept import AGE, Kept, kept, messages
from bench.at_scale.passing import Passing
from bench.meter import own_cpu_seconds
from handrail.mesh.streams import FLOW
from handrail.visibility.retention.latecomers import AFTER
from handrail.visibility.retention.waiting_room import WAIT

HEAD = (
    "| open at once | purged | broker ms of CPU a flow: judged | purged | looked at again | all "
    "| its share of a core at 116 flows/s | flows/s judged | purged |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)

_BAR = 116
"""Flows a second: 10,000,000 a day."""

_AS_FAST_AS_IT_GOES = 100_000
_SECONDS = 3600.0


class _Spent(NamedTuple):
    """Seconds of the broker's CPU, and by the clock."""

    cpu: float
    clock: float


class Purged(NamedTuple):
    """How many refunds were purged, of how many that were open at once, and what each part took."""

    open_at_once: int
    flows: int
    judged: _Spent
    purged: _Spent
    looked: _Spent

    def row(self) -> str:
        """A row of the table."""
        parts = self.judged, self.purged, self.looked
        each = [part.cpu / self.flows * 1000 for part in parts]
        figures = [
            f"{self.open_at_once:,}",
            f"{self.flows:,}",
            *(f"{cost:.2f}" for cost in (*each, sum(each))),
            f"{sum(each) * _BAR / 1000:.0%}",
            *(f"{self.flows / part.clock:.0f}" for part in parts[:2]),
        ]
        return f"| {' | '.join(figures)} |"


async def measure(*, events: int, open_at_once: int) -> Purged:
    """Has so many events pass through, and all flows end; then all are purged. One flow, older than all, stays."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with kept(Path(folder), rate=_AS_FAST_AS_IT_GOES) as installation:
            await Passing(installation.admin, open_at_once=1_000_000, keyed=False).go_on(events=1, rate=1_000)
            passing = Passing(installation.admin, open_at_once=open_at_once, keyed=True)
            await passing.begin()
            await passing.go_on(events=events, rate=_AS_FAST_AS_IT_GOES)
            await passing.finish()
            return await _measure(installation, open_at_once, passing.begun)


async def _measure(installation: Kept, open_at_once: int, flows: int) -> Purged:
    await installation.until_kept()
    judged = await _spent(installation, waits=2 * AGE.total_seconds())
    _, purged = await _round(installation), await _spent(installation, waits=WAIT.total_seconds())
    _, looked = await _round(installation), await _spent(installation, waits=AFTER.total_seconds())
    left = await messages(installation.admin, FLOW)
    assert left == 1, f"{left} messages are left in FLOW, not that of the flow that stays"
    return Purged(open_at_once, flows, judged, purged, looked)


async def _spent(installation: Kept, *, waits: float) -> _Spent:
    await asyncio.sleep(waits)
    return await _round(installation)


async def _round(installation: Kept) -> _Spent:
    broker = [installation.server.pid]
    cpu, clock = own_cpu_seconds(broker), time.perf_counter()
    await installation.retention.round()
    return _Spent(own_cpu_seconds(broker) - cpu, time.perf_counter() - clock)
