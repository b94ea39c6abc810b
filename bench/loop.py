"""A closed loop: a fixed number of flows in flight; each flow that ends starts the next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from bench.meter import cpu_seconds

RAMP = 1.0
"""Seconds of warm-up, excluded from the rate."""

DRAIN = 30.0
"""Seconds that flows started within the window have to end after it; later ones count as lost."""


class Contender(Protocol):
    """A system that runs flows. `begin` returns a flow's name; `on_end` is called with it when the flow ends."""

    name: str
    on_end: Callable[[str], None]

    def begin(self, work: str) -> str:
        """Starts a flow of this workload."""

    def processes(self) -> Iterable[int]:
        """The processes of the system, without the client."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One run: flows per second over the window, CPU milliseconds per flow over the whole run, median latency in ms."""

    rate: float
    cpu_ms: float
    latency_ms: float
    flows: int


async def closed_loop(contender: Contender, work: str, *, in_flight: int, seconds: float) -> Figures:
    """Runs one workload. Raises AssertionError if a flow does not end."""
    running: dict[str, float] = {}
    ends: list[tuple[float, float]] = []
    drained = asyncio.Event()
    begun_at = time.perf_counter()
    until = begun_at + seconds
    before = cpu_seconds(contender.processes())

    def on_end(name: str) -> None:
        started = running.pop(name, None)
        if started is None:
            return
        now = time.perf_counter()
        ends.append((now, now - started))
        if now < until:
            begin()
        elif not running:
            drained.set()

    def begin() -> None:
        running[contender.begin(work)] = time.perf_counter()

    contender.on_end = on_end
    for _ in range(in_flight):
        begin()
    await asyncio.sleep(seconds)
    try:
        await asyncio.wait_for(drained.wait(), DRAIN)
    except TimeoutError:
        raise AssertionError(f"{contender.name}, {work}: {len(running)} flows did not end") from None
    cpu = cpu_seconds(contender.processes()) - before
    counted = [latency for end, latency in ends if begun_at + RAMP <= end <= until]
    latencies = sorted(latency for _, latency in ends)
    return Figures(
        rate=len(counted) / (seconds - RAMP),
        cpu_ms=cpu / len(ends) * 1000,
        latency_ms=latencies[len(latencies) // 2] * 1000,
        flows=len(ends),
    )
