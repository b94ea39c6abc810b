"""Retention as tests run it: flows may leave as soon as they are over."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import Engine

from handrail.mesh.bus import NatsBus
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import DECIDE, TRACK
from handrail.mesh.streams.flow_store import FlowStore
from handrail.visibility.archive.folder import LockedFolder
from handrail.visibility.retention.policy import Policy
from handrail.visibility.retention.retention import Retention, Settings
from handrail.visibility.retention.shelf import Shelf
from tests.support.flows import enriched, notified, start
from tests.support.mesh import publish
from tests.support.waiting import eventually

AT_ONCE = Policy(timedelta(), least=timedelta())


def shelf(bus: NatsBus, engine: Engine, folder: LockedFolder) -> Shelf:
    """What takes verdicts into the index."""
    return Shelf(folder, engine, FlowStore(bus, Catalog(bus)))


def retention(bus: NatsBus, engine: Engine, folder: LockedFolder, policy: Policy = AT_ONCE) -> Retention:
    """The loop, to be run round by round."""
    settings = Settings(policy, rate=10_000)
    return Retention(bus, folder, engine, shelf(bus, engine, folder), settings, holder="test")


async def purge_all(work: Retention, *, flows: int, within: timedelta = timedelta(seconds=60)) -> None:
    """Runs rounds until as many flows are purged, and one more: nothing else may leave."""
    purged = 0
    async with asyncio.timeout(within.total_seconds()):
        while purged < flows:
            purged += await work.round()
            await asyncio.sleep(0.1)
    assert purged + await work.round() == flows


async def handle_all(bus: NatsBus) -> None:
    """Acknowledges what the coordinator's durables deliver, as coordinators do."""
    pulls = [
        await bus.pull(FLOW, durable, in_flight=256, on_delivery=lambda delivery: delivery.ack())
        for durable in (DECIDE, TRACK)
    ]
    for durable in (DECIDE, TRACK):
        await eventually(partial(_unsettled, bus, durable), lambda left: left == 0)
    for pull in pulls:
        await pull.stop()


async def _unsettled(bus: NatsBus, durable: str) -> int:
    info = await bus.request_json(f"$JS.API.CONSUMER.INFO.{FLOW}.{durable}")
    return int(info["num_pending"]) + int(info["num_ack_pending"])


def do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the clock: flows may leave at once, and are sealed at once."""
    for name in ("retention.waiting_room.WAIT", "retention.latecomers.AFTER"):
        monkeypatch.setattr(f"handrail.visibility.{name}", timedelta())
    monkeypatch.setattr("handrail.visibility.follow.follower._LOOK_AGAIN", timedelta(milliseconds=100))


def flow_id(number: int) -> str:
    return f"{number:032x}"


async def finish(bus: NatsBus, *numbers: int) -> int:
    """Stores flows that are complete; returns the last sequence."""
    last = 0
    for each in map(flow_id, numbers):
        last = await publish(bus, start(each), enriched(each), notified(each))
    return last


async def in_flow(bus: NatsBus) -> set[str]:
    """The ids of the flows that FLOW has messages of."""
    info = await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}", {"subjects_filter": "flow.>"})
    return {subject.split(".")[2] for subject in info["state"].get("subjects") or {}}
