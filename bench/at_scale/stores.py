"""A broker with so many recorded events, and `handrail visibility` on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.meter import Processes, cpu_seconds, own_cpu_seconds
from handrail.mesh.bus import NatsBus
from handrail.mesh.streams import FLOW, ensure_streams
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import DECIDE, TRACK
from handrail.mesh.streams.set_up import Wishes, set_up
from tests.support.accounts import as_user, seed_file
from tests.support.mesh import Mesh
from tests.support.nats_server import NatsServer
from tests.support.recorded_refunds import record, refund_template

EVENTS_OF_A_REFUND = 5.67
"""On average; the amounts and people's answers are drawn."""

_AT_ONCE = 500
"""Refunds whose messages are mixed."""

OWN, HELPERS, BROKER = "visibility", "its helpers", "nats"
"""The process that reads and writes, those that help it to fold, and the broker."""


@dataclass(frozen=True, slots=True)
class Store:
    """A broker whose FLOW ends with `last_sequence`, an address for a database that is still empty, and a folder."""

    broker: int
    environment: Mapping[str, str]
    last_sequence: int
    database: str
    folder: Path


async def recorded(server: NatsServer, folder: Path, *, events: int, database: str) -> Store:
    """Records about so many events of refunds, as their agents would, without any."""
    async with await NatsBus.connect(as_user(server, "admin")) as bus:
        await ensure_streams(bus)
        await Mesh(bus, Catalog(bus)).put(refund_template())
        await record(bus, round(events / EVENTS_OF_A_REFUND), seed=1, at_once=_AT_ONCE)
        last = int((await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}"))["state"]["last_seq"])
    async with await NatsBus.connect(as_user(server, "setup")) as setup:
        async for _ in set_up(setup, Wishes()):
            pass
    environment = {"HANDRAIL_NATS": server.url, "HANDRAIL_NATS_NKEY_FILE": str(seed_file(server, "visibility"))}
    return Store(server.pid, environment, last, database or f"sqlite:///{folder}/index.db", folder)


async def as_it_is(server: NatsServer, store: Store) -> Store:
    """The same store, after more was stored."""
    async with await NatsBus.connect(as_user(server, "admin")) as bus:
        last = int((await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}"))["state"]["last_seq"])
    return replace(store, last_sequence=last)


async def handled(server: NatsServer) -> None:
    """Has coordinators take everything that FLOW holds for handled: their durables begin at its end."""
    async with await NatsBus.connect(as_user(server, "admin")) as bus:
        last = int((await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}"))["state"]["last_seq"])
        for durable in (DECIDE, TRACK):
            await bus.request_json(f"$JS.API.CONSUMER.RESET.{FLOW}.{durable}", {"seq": last + 1})


@contextmanager
def following(store: Store, **settings: str) -> Iterator[Processes]:
    """Runs `handrail visibility` with an archive and these settings, and ends it."""
    environment = {
        **settings,
        **{name: value for name, value in os.environ.items() if not name.startswith("HANDRAIL_NATS")},
        **store.environment,
        "HANDRAIL_DATABASE": store.database,
        "HANDRAIL_ARCHIVE": str(store.folder / "archive"),
    }
    with (store.folder / "visibility.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "handrail.cli.main", "visibility"], env=environment, stdout=log, stderr=log
        )
    try:
        yield {OWN: [process.pid], BROKER: [store.broker]}
    finally:
        process.terminate()
        process.wait()


def spent(processes: Processes) -> dict[str, float]:
    """CPU seconds so far of each part."""
    own = own_cpu_seconds(processes[OWN])
    return {
        OWN: own,
        HELPERS: cpu_seconds(processes[OWN]) - own,
        BROKER: cpu_seconds(processes[BROKER]),
    }
