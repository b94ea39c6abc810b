"""How fast the index catches up from zero."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from sqlalchemy import Engine

from bench.at_scale.stores import BROKER, HELPERS, OWN, Store, following, spent
from tests.support.followed import covered
from tests.support.waiting import until

HEAD = (
    f"| events | events/s | cores kept busy | {OWN} µs | {HELPERS} µs | {BROKER} µs | events/s of two cores |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)

_START_SECONDS = 60.0
_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """How long it took, from the first stored batch on, and the CPU seconds of each part meanwhile."""

    events: int
    seconds: float
    cpu: dict[str, float]

    def row(self) -> str:
        """A row of the table. The last figure is what two cores do that have nothing else to do: no process took more
        than one, and all of them together no more than two.
        """
        each = {part: seconds / self.events * 1e6 for part, seconds in self.cpu.items()}
        total = sum(each.values())
        figures = [
            f"{self.events:,}",
            f"{self.events / self.seconds:,.0f}",
            f"{sum(self.cpu.values()) / self.seconds:.2f}",
            *(f"{each[part]:.0f}" for part in (OWN, HELPERS, BROKER)),
            f"{min(1e6 / each[OWN], 2e6 / total):,.0f}",
        ]
        return f"| {' | '.join(figures)} |"


async def caught_up(store: Store, engine: Engine) -> CaughtUp:
    """Has the index catch up from zero, and leaves it."""
    with following(store) as processes:
        await until(lambda: covered(engine), within=_START_SECONDS)
        start, began, before = covered(engine), time.perf_counter(), spent(processes)
        while covered(engine) < store.last_sequence:
            await asyncio.sleep(0.1)
            assert time.perf_counter() - began < _SECONDS, "the index did not catch up in an hour"
        took, after = time.perf_counter() - began, spent(processes)
    return CaughtUp(store.last_sequence - start, took, {part: after[part] - before[part] for part in after})
