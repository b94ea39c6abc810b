"""P7: much that is due at once is worked off in order: nothing is handed out twice, nothing ends, nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from handrail.coordinator.reconcile import settle
from handrail.coordinator.reconcile.replica import Replica
from handrail.mesh.bus import NatsBus
from handrail.mesh.flow import Flow
from handrail.mesh.fold import fold
from handrail.mesh.streams import flow_store
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.template import Template
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry, Recorded
from handrail.v1.template_pb2 import FlowTemplate
from tests.support import flows
from tests.support.mesh import Mesh, name_of_status
from tests.support.waiting import eventually, until

NUMBER = 400


def impatient() -> Template:
    """The refund; its first step is given up after half a second."""
    proto = FlowTemplate()
    proto.CopyFrom(flows.template().proto)
    proto.steps[0].timeout.FromTimedelta(timedelta(seconds=0.5))
    return Template.compile(proto, flows.template().contracts)


@pytest.fixture
async def mesh(bus: NatsBus, catalog: Catalog) -> Mesh:
    """The refund, and a broker that waits no longer than a second for an ack."""
    mesh = Mesh(bus, catalog)
    await mesh.put(impatient())
    return mesh


@asynccontextmanager
async def running(bus: NatsBus, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Replica]:
    """A replica whose deliveries come again after a second without an ack."""
    monkeypatch.setattr(settle, "ACK_WAIT", timedelta(seconds=1))
    replica = Replica(bus, holder="test", sweep_interval=timedelta(hours=1))
    await replica.prepare(replicas=1)
    for stream, durable in (("FLOW", "track"), ("FLOW", "decide"), ("TIMER", "due")):
        info = await bus.request_json(f"$JS.API.CONSUMER.INFO.{stream}.{durable}")
        config = {**info["config"], "ack_wait": 1_000_000_000}
        await bus.request_json(f"$JS.API.CONSUMER.CREATE.{stream}.{durable}", {"stream_name": stream, "config": config})
    stopping = asyncio.Event()
    work = asyncio.create_task(replica.run(stopping))
    try:
        yield replica
        assert not work.done(), "the replica ended"
    finally:
        stopping.set()
        await work


async def store_all(bus: NatsBus, entries: list[Entry]) -> None:
    """Publish all at once."""
    await asyncio.gather(*(bus.publish(entry.address.subject, entry.body) for entry in entries))


async def left(bus: NatsBus, stream: str, durable: str) -> int:
    """What a durable has still to deliver or to see settled."""
    info = await bus.request_json(f"$JS.API.CONSUMER.INFO.{stream}.{durable}")
    assert not info.get("num_redelivered"), f"{durable} hands out again what is being worked on"
    return int(info["num_pending"]) + int(info["num_ack_pending"])


async def test_p7_a_backlog_longer_than_the_brokers_wait_is_handed_out_once(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = [ids.flow_id_from_key("refund", str(number)) for number in range(NUMBER)]
    await store_all(mesh.bus, [flows.start(each) for each in everyone])
    async with running(mesh.bus, monkeypatch) as replica:
        # First all events, then, while they are at it, all time-outs.
        await eventually(lambda: left(mesh.bus, "FLOW", "track"), lambda number: number == 0, within=60)
        await eventually(lambda: mesh.messages(), lambda number: number >= 3 * NUMBER, within=60)
        await eventually(lambda: left(mesh.bus, "TIMER", "due"), lambda number: number == 0, within=60)
        assert not list(replica.troubles)
    assert {name_of_status(await mesh.flow(each)) for each in everyone} == {"ESCALATED"}


async def test_p7_a_flow_that_breaks_the_fold_keeps_no_other_from_its_end(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = [ids.flow_id_from_key("refund", str(number)) for number in range(100)]
    poisoned = everyone[42]
    looked = 0

    def broken(template: Template, history: Sequence[Recorded], *more: Any) -> Flow:
        nonlocal looked
        if history and history[0].event.flow_id == poisoned:
            looked += 1
            raise ZeroDivisionError("a bug in the fold")
        return fold(template, history, *more)

    with monkeypatch.context() as patched:
        patched.setattr(flow_store, "fold", broken)
        patched.setattr(settle, "_FIRST_WAIT_AFTER_A_BUG", timedelta(seconds=0.1))
        async with running(mesh.bus, monkeypatch) as replica:
            await store_all(mesh.bus, [flows.start(each) for each in everyone])
            await eventually(lambda: mesh.messages(), lambda number: number >= 3 * 99 + 1, within=60)
            await until(lambda: looked >= 3)
            assert {(each.about, each.error) for each in replica.troubles} == {(poisoned, "BUG")}
            patched.setattr(flow_store, "fold", fold)
            await eventually(lambda: mesh.messages(), lambda number: number >= 3 * 100, within=60)
            await until(lambda: not list(replica.troubles))
