"""W9: a fan-out with a counted join, for growing numbers of parts. The CPU for each part must not grow with them."""

from __future__ import annotations

import asyncio
import time

from bench.figures import Figures
from bench.flows import Flows
from bench.meter import cpu_by_name, cpu_ms_each


async def measure(flows: Flows, *, parts: int, within: float) -> Figures:
    """Runs one flow with so many parts; all figures are for each part. A flow that takes too long is "not done"."""
    ended = asyncio.Event()
    before = cpu_by_name(flows.processes())
    began = time.perf_counter()
    flows.publish("joined", ended.set, units=parts)
    try:
        await asyncio.wait_for(ended.wait(), within)
    except TimeoutError:
        return Figures(count=0, rate=0, note=f"not done within {within:g} s")
    took = time.perf_counter() - began
    await flows.settled()
    after = cpu_by_name(flows.processes())
    return Figures(
        count=parts,
        rate=parts / took,
        cpu_ms=cpu_ms_each(before, after, parts),
        latency_ms={"done": (took * 1000, took * 1000)},
    )
