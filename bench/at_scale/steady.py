"""How far the index is behind while W1 runs at full rate, and what W1 loses by it.

Turns with and without it alternate on one installation. Whatever else runs on the machine disturbs both.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Engine

from bench.at_scale.catch_up import CaughtUp, caught_up
from bench.at_scale.stores import BROKER, OWN, Store, following, spent
from bench.figures import SERVER, Figures
from bench.flows import Flows
from bench.installation import Installation
from bench.loop import RAMP, closed_loop
from bench.works import PARK, WORKS
from handrail.mesh.permissions import ADMIN
from handrail.mesh.streams import FLOW
from handrail.visibility.index.database import open_engine, read_position
from tests.support.followed import covered
from tests.support.waiting import until

HEAD = (
    "| | W1 flows/s | CPU ms a flow | of the index µs an event | lag p50 s | lag p99 s |\n"
    "| --- | --- | --- | --- | --- | --- |"
)

_WORK = "happy"
_EVENTS = 4
"""Messages of a flow of W1."""

_LOOK = 0.05
_CATCH_UP_SECONDS = 600.0


class Steady(NamedTuple):
    """Turns without and with the index, its CPU µs for each event, and all lags that were seen, in seconds."""

    alone: list[Figures]
    beside: list[Figures]
    cpu: list[float]
    lags: list[float]

    def rows(self) -> str:
        """The rows of the table."""
        alone, beside = (statistics.median(turn.rate for turn in turns) for turns in (self.alone, self.beside))
        costs = [statistics.median(turn.system_cpu_ms for turn in turns) for turns in (self.alone, self.beside)]
        cuts = statistics.quantiles(self.lags, n=100)
        return (
            f"| alone | {alone:,.0f} | {costs[0]:.2f} | | | |\n"
            f"| with the index | {beside:,.0f} | {costs[1]:.2f} | {statistics.median(self.cpu):.0f} "
            f"| {cuts[49]:.2f} | {cuts[98]:.2f} |\n"
            f"| lost | {1 - beside / alone:.0%} | | | | |"
        )


def run(folder: Path, *, rounds: int, seconds: float) -> tuple[Steady, CaughtUp]:
    """Runs the turns; then the index catches up from zero with all flows of W1."""
    with Installation(folder, WORKS[_WORK].package, sync_always=False) as installation:
        return asyncio.run(_run(installation, folder, rounds, seconds))


async def _run(installation: Installation, folder: Path, rounds: int, seconds: float) -> tuple[Steady, CaughtUp]:
    flows, found = Flows(installation, PARK), Steady([], [], [], [])
    await flows.open()
    in_flight = WORKS[_WORK].in_flight
    try:
        await closed_loop(flows, _WORK, in_flight=in_flight, seconds=2 * RAMP)
        for _ in range(rounds):
            found.alone.append(await closed_loop(flows, _WORK, in_flight=in_flight, seconds=seconds))
            store = await _store(installation, folder, "beside")
            engine = open_engine(store.database)
            with following(store) as processes:
                await until(lambda: covered(engine) >= store.last_sequence, within=_CATCH_UP_SECONDS)  # noqa: B023
                async with _watching(engine, found.lags):
                    before = spent(processes)
                    turn = await closed_loop(flows, _WORK, in_flight=in_flight, seconds=seconds)
                    after = spent(processes)
            engine.dispose()
            found.beside.append(turn)
            used = sum(after[part] - before[part] for part in after if part != BROKER)
            found.cpu.append(used / turn.count / _EVENTS * 1e6)
    finally:
        await flows.close()
    store = await _store(installation, folder, "anew")
    engine = open_engine(store.database)
    caught = await caught_up(store, engine)
    engine.dispose()
    return found, caught


async def _store(installation: Installation, folder: Path, name: str) -> Store:
    async with await installation.connect(ADMIN) as bus:
        last = int((await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}"))["state"]["last_seq"])
    (folder / name).mkdir(exist_ok=True)
    database = f"sqlite:///{folder / name}/index.db"
    broker = installation.processes()[SERVER][0]
    return Store(broker, installation.environment(OWN), last, database, folder / name)


@asynccontextmanager
async def _watching(engine: Engine, lags: list[float]) -> AsyncIterator[None]:
    """Looks at how old the newest message is that the index covers, but for the first second."""

    async def watch() -> None:
        await asyncio.sleep(RAMP)
        while True:
            lags.append(await asyncio.to_thread(_lag, engine))
            await asyncio.sleep(_LOOK)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()


def _lag(engine: Engine) -> float:
    with engine.connect() as connection:
        position = read_position(connection)
    assert position is not None
    assert position.time is not None
    return (datetime.now(UTC) - position.time).total_seconds()
