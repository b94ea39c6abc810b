"""P4: a reader that is answered by a replica which lags sees that, and waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from handrail.mesh.bus import Bus, NatsBus
from handrail.mesh.bus.direct_get import Page
from handrail.mesh.errors import BrokerUnavailable
from handrail.mesh.streams import FLOW, ensure_streams
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore
from tests.support import flows
from tests.support.lagging import Wires, lagging_cluster
from tests.support.nats_server import NatsCluster
from tests.support.waiting import eventually

T = TypeVar("T")

ELECTION = timedelta(seconds=60)
SOON = timedelta(milliseconds=300)

READS = 60
"""Reads at a time: the replica answers some of them; what it hands on to the others they don't hear of."""


@pytest.mark.timeout(120)
async def test_p4_what_a_replica_has_not_got_yet_is_waited_for(tmp_path: Path) -> None:
    async with lagging_cluster(tmp_path) as (cluster, wires):
        await cluster.restore()
        async with (
            await NatsBus.connect(cluster.servers[0].settings("coordinator")) as writer,
            await NatsBus.connect(cluster.servers[2].settings("coordinator")) as reader,
        ):
            await ensure_streams(writer, replicas=3)
            await lead_elsewhere(writer, cluster)
            store = FlowStore(reader, Catalog(reader))
            sequence = await writer.publish(flows.start().address.subject, flows.start().body)
            assert len(await store.read("refund", flows.FLOW_ID, at_least=sequence)) == 1

            await eventually(lambda: cut_off(wires, reader), bool)
            entry = flows.enriched()
            sequence = await writer.publish(entry.address.subject, entry.body)
            assert {len(page.messages) for page in await eventually(lambda: believing(reader))} == {1}, (
                "it answers with what it has"
            )
            knowing = (store.read("refund", flows.FLOW_ID, at_least=sequence, timeout=SOON) for _ in range(READS))
            assert await answered(knowing) == [], "a reader that knows of more accepts no such answer"

            waiting = asyncio.create_task(store.read("refund", flows.FLOW_ID, at_least=sequence))
            wires.release()
            assert [recorded.type for recorded in await waiting] == [flows.RECEIVED, flows.ENRICHED]


async def cut_off(wires: Wires, reader: Bus) -> bool:
    """Cut the replica off, unless it does not answer reads by itself yet: that takes it a second or two."""
    wires.hold()
    if await believing(reader):
        return True
    wires.release()
    return False


async def believing(reader: Bus) -> list[Page]:
    """What the replica answers."""
    subjects = [f"flow.refund.{flows.FLOW_ID}.>"]
    return await answered(reader.direct_get(FLOW, multi_last=subjects, timeout=SOON) for _ in range(READS))


async def answered(reads: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """What reads gave, without those that were given up."""
    found: list[T] = []
    for answer in await asyncio.gather(*reads, return_exceptions=True):
        if isinstance(answer, BrokerUnavailable):
            continue
        assert not isinstance(answer, BaseException)
        found.append(answer)
    return found


async def lead_elsewhere(bus: Bus, cluster: NatsCluster) -> None:
    """Have the stream led by a server that is not the one to be cut off."""
    lagging = cluster.servers[2].name

    async def leader() -> str:
        info = await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}", timeout=ELECTION)
        return str(info["cluster"].get("leader", ""))

    while await eventually(leader, bool) == lagging:
        await bus.request_json(f"$JS.API.STREAM.LEADER.STEPDOWN.{FLOW}", timeout=ELECTION)
        await eventually(leader, lambda now: now != lagging)
