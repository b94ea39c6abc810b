"""W6: many armed timers, and many deadlines that are due at once."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

from bench.figures import Figures, percentiles
from bench.flows import Flows
from bench.installation import Installation
from bench.meter import cpu_by_name, cpu_ms_each
from handrail.mesh.wire.subjects import COORDINATOR, due_subject, timer_subject

_DEADLINE = 30.0
"""Seconds; the deadline in timed.yaml."""

_AT_ONCE = 500
_LIMIT = 300.0


async def measure(installation: Installation, flows: Flows, *, armed: int, due: int) -> Figures:
    """Arms timers that are due tomorrow, then starts flows whose deadlines come at the same time.

    The rate and the CPU cover the time from the first deadline until each of these flows is escalated; the latency is
    from a flow's deadline until its escalation.
    """
    await _arm(installation, armed)
    lateness: list[float] = []
    all_done = asyncio.Event()

    def begin() -> None:
        deadline = time.perf_counter() + _DEADLINE

        def on_end() -> None:
            lateness.append(time.perf_counter() - deadline)
            if len(lateness) == due:
                all_done.set()

        flows.publish("timed", on_end)

    first = time.perf_counter() + _DEADLINE
    for nth in range(due):
        begin()
        if nth % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)
    # What their start costs is not measured: it is over long before the deadline.
    await asyncio.sleep(max(0.0, first - time.perf_counter()))
    before = cpu_by_name(installation.processes())
    try:
        await asyncio.wait_for(all_done.wait(), _LIMIT)
    except TimeoutError:
        raise AssertionError(f"only {len(lateness)} of {due} deadlines were handled within {_LIMIT:g} s") from None
    took = time.perf_counter() - first
    await flows.settled()
    after = cpu_by_name(installation.processes())
    return Figures(
        count=due,
        rate=due / took,
        cpu_ms=cpu_ms_each(before, after, due),
        latency_ms={"done": percentiles(lateness)},
        note=f"{armed:,} more armed; all handled after {took:.1f} s",
    )


async def _arm(installation: Installation, number: int) -> None:
    """Arms timers of flows that do not exist, all due tomorrow: the broker keeps them, nobody handles them."""
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    async with await installation.connect(COORDINATOR) as bus:
        for start in range(0, number, _AT_ONCE):
            flow_ids = [f"{2**127 + nth:032x}" for nth in range(start, min(number, start + _AT_ONCE))]
            await asyncio.gather(
                *(
                    bus.publish(
                        timer_subject("timed", flow_id, "deadline"),
                        b"0",
                        headers={
                            "Nats-Schedule": f"@at {tomorrow}",
                            "Nats-Schedule-Target": due_subject("timed", flow_id, "deadline"),
                        },
                    )
                    for flow_id in flow_ids
                )
            )
