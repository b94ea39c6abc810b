"""Agents on three servers that replicate, while the stream's leader dies."""

from __future__ import annotations

import asyncio

import pytest

from handrail.agents import Agent
from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.catalog import Catalog
from tests.support.agents import Chain, received, template
from tests.support.mesh import Mesh, name_of_status, workers
from tests.support.nats_server import NatsCluster

pytestmark = pytest.mark.timeout(240)


async def test_p3_p8_flows_end_with_each_fact_and_each_payment_once_though_the_leader_is_killed(
    nats_cluster: NatsCluster, cluster_bus: NatsBus
) -> None:
    chain, detection = Chain(), Agent("detection")
    mesh = Mesh(cluster_bus, Catalog(cluster_bus))
    await mesh.put(template())

    def settings(agent: str) -> BusSettings:
        return nats_cluster.settings(agent)

    async with workers(settings, [*chain.agents, detection]):
        started: list[str] = []

        async def feed() -> None:
            for number in range(120):
                flow = await detection.start_flow("refund", received(f"cb-{number}"), key=f"cb-{number}")
                started.append(flow.flow_id)

        feeding = asyncio.create_task(feed())
        await mesh.until_messages(100)
        info = await cluster_bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}")
        victim = nats_cluster.named(str(info["cluster"]["leader"]))
        victim.kill()
        await feeding
        for flow_id in started:
            await mesh.until_status(flow_id, "COMPLETED", within=90)
        victim.start()
        for flow_id in started:
            flow = await mesh.flow(flow_id)
            assert name_of_status(flow) == "COMPLETED"
            assert len(flow.facts) == 4
            assert flow.void == {}
        for agent in chain.agents:
            await mesh.until_settled(agent.name)
    assert len(set(started)) == 120
    assert chain.book.balance == 120 * 250
    assert len(set(chain.book.calls)) == 120
