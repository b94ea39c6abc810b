"""Two ways to load a system: with a fixed number of flows in flight, or with a fixed number of starts a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from bench.figures import Figures, percentiles
from bench.meter import Processes, cpu_by_name, cpu_ms_each

RAMP = 1.0
"""Seconds of warm-up, excluded from the rate."""

DRAIN = 60.0
"""Seconds that the last flows have to end; later ones count as lost."""


class Contender(Protocol):
    """A system that runs flows."""

    timings: dict[str, list[float]]
    """Seconds of parts of flows, by what was waited for. Whoever measures empties it before."""

    def begin(self, work: str, on_end: Callable[[], None]) -> None:
        """Starts a flow of this workload, and calls `on_end` when it ends."""

    def processes(self) -> Processes:
        """The processes of the system, without the client."""

    async def settled(self) -> None:
        """Waits until nothing is left to do for flows that have ended."""


async def closed_loop(contender: Contender, work: str, *, in_flight: int, seconds: float) -> Figures:
    """Each flow that ends starts the next, for so many seconds. Raises AssertionError if a flow does not end."""
    ends: list[tuple[float, float]] = []
    running = 0
    drained = asyncio.Event()
    contender.timings.clear()
    before = cpu_by_name(contender.processes())
    begun_at = time.perf_counter()
    until = begun_at + seconds

    def begin() -> None:
        nonlocal running
        running += 1
        started = time.perf_counter()

        def on_end() -> None:
            nonlocal running
            running -= 1
            now = time.perf_counter()
            ends.append((now, now - started))
            if now < until:
                begin()
            elif not running:
                drained.set()

        contender.begin(work, on_end)

    for _ in range(in_flight):
        begin()
    await asyncio.sleep(seconds)
    await _drain(drained, work, lambda: running)
    await contender.settled()
    after = cpu_by_name(contender.processes())
    ramp = min(RAMP, seconds / 4)
    counted = sum(begun_at + ramp <= end <= until for end, _ in ends)
    return Figures(
        count=len(ends),
        rate=counted / (seconds - ramp),
        cpu_ms=cpu_ms_each(before, after, len(ends)),
        latency_ms={"done": percentiles([latency for _, latency in ends])},
    )


async def paced_loop(contender: Contender, work: str, *, rate: float, seconds: float) -> Figures:
    """Starts `rate` flows a second for so many seconds. Raises AssertionError if a flow does not end."""
    latencies: list[float] = []
    number = max(1, int(rate * seconds))
    drained = asyncio.Event()
    contender.timings.clear()
    before = cpu_by_name(contender.processes())

    def begin() -> None:
        started = time.perf_counter()

        def on_end() -> None:
            latencies.append(time.perf_counter() - started)
            if len(latencies) == number:
                drained.set()

        contender.begin(work, on_end)

    loop = asyncio.get_running_loop()
    first = loop.time()
    for nth in range(number):
        await asyncio.sleep(max(0.0, first + nth / rate - loop.time()))
        begin()
    await _drain(drained, work, lambda: number - len(latencies))
    await contender.settled()
    after = cpu_by_name(contender.processes())
    parts = {"done": latencies, **contender.timings}
    return Figures(
        count=number,
        rate=rate,
        cpu_ms=cpu_ms_each(before, after, number),
        latency_ms={name: percentiles(each) for name, each in parts.items()},
    )


async def _drain(drained: asyncio.Event, work: str, left: Callable[[], int]) -> None:
    try:
        await asyncio.wait_for(drained.wait(), DRAIN)
    except TimeoutError:
        raise AssertionError(f"{work}: {left()} flows did not end within {DRAIN:g} s") from None
