"""P4: a reader that is answered by a replica which lags sees that, and waits."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from handrail.mesh.bus import Bus
from handrail.mesh.catalog import Catalog
from handrail.mesh.store import FlowStore
from handrail.mesh.streams import FLOW, ensure_streams
from tests.support import flows
from tests.support.lagging import lagging_cluster
from tests.support.mesh import eventually
from tests.support.nats_server import NatsCluster

ELECTION = timedelta(seconds=60)


@pytest.mark.timeout(120)
async def test_p4_what_a_replica_has_not_got_yet_is_waited_for(tmp_path: Path) -> None:
    async with lagging_cluster(tmp_path) as (cluster, wires):
        await cluster.restore()
        async with (
            await Bus.connect(cluster.servers[0].settings("coordinator")) as writer,
            await Bus.connect(cluster.servers[2].settings("coordinator")) as reader,
        ):
            await ensure_streams(writer, replicas=3)
            await lead_elsewhere(writer, cluster)
            store = FlowStore(reader, Catalog(reader))
            sequence = await writer.publish(flows.start().address.subject, flows.start().body)
            assert len(await store.read("refund", flows.FLOW_ID, at_least=sequence)) == 1

            wires.hold()
            entry = flows.enriched()
            sequence = await writer.publish(entry.address.subject, entry.body)
            knowing = asyncio.create_task(store.read("refund", flows.FLOW_ID, at_least=sequence))
            believing = await reader.direct_get(FLOW, multi_last=[f"flow.refund.{flows.FLOW_ID}.>"])
            assert len(believing.messages) == 1, "the replica lags"
            assert not knowing.done(), "who knows of more does not take that for an answer"
            wires.release()
            assert [recorded.type for recorded in await knowing] == [flows.RECEIVED, flows.ENRICHED]


async def lead_elsewhere(bus: Bus, cluster: NatsCluster) -> None:
    """Have the stream led by a server that is not the one to be held up."""

    async def leader() -> str:
        info = await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}", timeout=ELECTION)
        return str(info["cluster"].get("leader", ""))

    while await eventually(leader, bool) == cluster.servers[2].name:
        await bus.request_json(f"$JS.API.STREAM.LEADER.STEPDOWN.{FLOW}", timeout=ELECTION)
        await eventually(leader, lambda now: now != cluster.servers[2].name)
