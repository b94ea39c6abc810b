"""What the sweep takes while 50,000 flows are open that lost their timers, and whether others notice.

Turns with and without it alternate, each with a coordinator of its own; a client stores whole refunds at a fixed rate.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Engine, func, select

from bench.at_scale.coordinators import coordinating
from bench.at_scale.stores import BROKER, OWN
from bench.meter import cpu_seconds
from handrail.coordinator.reconcile.sweep_marks import Mark, read_mark, read_streams, write_mark
from handrail.mesh.bus import NatsBus
from handrail.visibility.index import schema
from tests.support.accounts import as_user
from tests.support.nats_server import NatsServer
from tests.support.recorded_refunds import small_refund
from tests.support.waiting import eventually

HEAD = (
    f"| events | open flows | | coordinator % of a core | {BROKER} % | {OWN} % | flows looked at /s "
    "| publish p50 ms | p99 ms |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)

_RATE = 10
"""Refunds that are stored a second, of five messages each."""

_INTERVAL = "10s"
"""A sweep begins so soon. It takes longer than that, and looks at overdue timers each time meanwhile."""

_RAMP = 15.0
"""Seconds of publishing before a turn is measured: a coordinator that has just started is busy with itself."""

_OLD_ENOUGH = 400.0
"""Seconds after which the sweep looks at a flow for certain."""


class Turn(NamedTuple):
    """Shares of a core, flows that were looked at a second, and how long each publish took, in milliseconds."""

    coordinator: float
    broker: float
    visibility: float
    looked_at: float
    took: list[float]


class Serving(NamedTuple):
    """The process that serves the index, its database, and a coordinator's settings to ask it."""

    pid: int
    engine: Engine
    settings: dict[str, str]


async def measure(
    server: NatsServer, folder: Path, index: Serving, *, rounds: int, seconds: float
) -> dict[str, list[Turn]]:
    """Runs the turns."""
    found: dict[str, list[Turn]] = {"without": [], "with": []}
    async with await NatsBus.connect(as_user(server, "coordinator")) as bus:
        streams = await read_streams(bus)
        # Nothing was looked at, and it is not the first sweep, which walks over everything.
        await write_mark(bus, Mark(flow_created=streams.flow_created, timer_created=streams.timer_created))
        for nth in range(rounds):
            for name, interval in (("without", "1h"), ("with", _INTERVAL)):
                before = (await read_mark(bus)).seen
                with coordinating(server, folder, HANDRAIL_SWEEP_INTERVAL=interval, **index.settings) as coordinator:
                    if name == "with":
                        await eventually(lambda: _has_begun(bus, before), within=_OLD_ENOUGH)  # noqa: B023
                    processes = (coordinator.pid, server.pid, index.pid)
                    turn = await _turn(bus, index.engine, processes, f"{nth}-{name}", seconds=seconds)
                    found[name].append(turn)
    return found


def rows(events: int, flows: int, found: dict[str, list[Turn]]) -> str:
    """Rows of the table: medians of the turns, and of all publishes."""
    lines = []
    for name, turns in found.items():
        cuts = statistics.quantiles((each for turn in turns for each in turn.took), n=100)
        shares = (
            statistics.median(turn.coordinator for turn in turns),
            statistics.median(turn.broker for turn in turns),
            statistics.median(turn.visibility for turn in turns),
        )
        looked_at = statistics.median(turn.looked_at for turn in turns)
        figures = [
            *(f"{share * 100:.1f}" for share in shares),
            f"{looked_at:.0f}",
            f"{cuts[49]:.1f}",
            f"{cuts[98]:.1f}",
        ]
        lines.append(f"| {events:,} | {flows:,} | {name} | {' | '.join(figures)} |")
    return "\n".join(lines)


async def _has_begun(bus: NatsBus, before: int) -> bool:
    return (await read_mark(bus)).seen > before


async def _turn(bus: NatsBus, engine: Engine, processes: Sequence[int], name: str, *, seconds: float) -> Turn:
    await _publishing(bus, f"{name}-ramp", _RAMP)
    mark, began = await read_mark(bus), time.perf_counter()
    before = [cpu_seconds([each]) for each in processes]
    took = await _publishing(bus, name, seconds)
    after = [cpu_seconds([each]) for each in processes]
    lasted = time.perf_counter() - began
    shares = [(late - early) / lasted for early, late in zip(before, after, strict=True)]
    looked_at = _between(engine, mark.seen, (await read_mark(bus)).seen)
    return Turn(shares[0], shares[1], shares[2], looked_at / lasted, took)


def _between(engine: Engine, after: int, up_to: int) -> int:
    """How many open flows have their last message there."""
    at = schema.flow.c
    there = at.ended.is_(None) & (at.last_sequence > after) & (at.last_sequence <= up_to)
    with engine.connect() as connection:
        return connection.execute(select(func.count()).where(there)).scalar_one()


async def _publishing(bus: NatsBus, name: str, seconds: float) -> list[float]:
    """Stores refunds at a fixed rate; returns how long each message took."""
    took: list[float] = []

    async def publish(nth: int) -> None:
        for entry in small_refund(f"paced-{name}-{nth}"):
            began = time.perf_counter()
            await bus.publish(entry.address.subject, entry.body)
            took.append((time.perf_counter() - began) * 1000)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for nth in range(int(seconds * _RATE)):
            await asyncio.sleep(max(0.0, started + nth / _RATE - time.perf_counter()))
            tasks.create_task(publish(nth))
    return took
