"""P3 after a purge, on real servers: what comes late is refused by the broker, or put before a person."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from handrail.agents import Agent
from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import ensure_streams, outcomes
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore
from handrail.v1.error_reason_pb2 import ErrorReason
from payments.v1.payments_pb2 import ChargebackEnriched, ChargebackReceived, CustomerNotified
from tests.support import flows
from tests.support.coordinator import coordinating
from tests.support.lagging import BehindNatsBus
from tests.support.mesh import Mesh, publish, workers
from tests.support.nats_server import NatsCluster, NatsServer
from tests.support.purging import left, old_flow_id, purge, quarantined
from tests.support.waiting import eventually

ARCHIVED = ErrorReason.ERROR_REASON_FLOW_ARCHIVED
FLOWS = 25


async def test_p3_a_worker_that_answers_after_the_purge_stores_nothing_and_its_effect_is_a_matter_for_a_person(
    mesh: Mesh, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handrail.agents.outcomes.SAFE_AGE", timedelta())
    await mesh.put(flows.template())
    began, may_end, calls = asyncio.Event(), asyncio.Event(), list[str]()
    enrichment, notification = Agent("enrichment"), Agent("notification")

    @enrichment.on(ChargebackReceived)
    async def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        return flows.enrichment()

    @notification.on(ChargebackEnriched)
    async def notify(event: ChargebackEnriched) -> CustomerNotified:
        calls.append(event.chargeback_id)
        began.set()
        await may_end.wait()
        return flows.told()

    flow_id = old_flow_id()
    async with workers(nats_server.settings, [enrichment, notification]):
        await publish(mesh.bus, flows.start(flow_id))
        await began.wait()
        await purge(mesh.bus, mesh.store, flow_id)
        may_end.set()
        found = await eventually(lambda: quarantined(mesh.bus), bool)
        await mesh.until_settled("notification")
    [kept] = found.values()
    assert (kept.reason, kept.reporter, kept.stream_sequence) == (ARCHIVED, "notification", 0)
    assert f".{flow_id}.event.notification." in kept.subject
    assert await left(mesh.bus, flow_id) == []
    assert len(calls) == 1


@pytest.fixture
async def replicas(nats_cluster: NatsCluster) -> AsyncIterator[list[BehindNatsBus]]:
    """Connections to three servers; what the last ones read comes from replicas that may lag."""
    async with AsyncExitStack() as stack:
        buses: list[BehindNatsBus] = []
        for server in nats_cluster.servers:
            bus = await stack.enter_async_context(await NatsBus.connect(server.settings("coordinator")))
            buses.append(BehindNatsBus(bus.connection))
        await ensure_streams(buses[0], replicas=3)
        yield buses


@pytest.mark.parametrize("first_of_any", [False, True], ids=["one type", "several types"])
async def test_p3_on_three_servers_an_answer_is_refused_right_after_the_purge(
    replicas: list[BehindNatsBus], first_of_any: bool
) -> None:
    one, two, three = replicas
    mesh = Mesh(one, Catalog(one))
    await mesh.put(flows.template())
    for _ in range(FLOWS):
        flow_id = old_flow_id()
        await publish(one, flows.start(flow_id), flows.enriched(flow_id))
        trigger = (await purge(one, mesh.store, flow_id))[-1]
        three.lag(reads=2)
        for bus in (two, three):
            with pytest.raises(HandrailError) as refused:
                await outcomes.store(bus, flows.notified(flow_id), first_of_any=first_of_any, only_with=trigger)
            assert refused.value.reason == ARCHIVED
        assert await left(one, flow_id) == []


async def test_p3_on_three_servers_a_late_message_reopens_nothing(replicas: list[BehindNatsBus]) -> None:
    one, two, _ = replicas
    mesh = Mesh(one, Catalog(one))
    await mesh.put(flows.template())
    flow_id = old_flow_id()
    async with coordinating(one, sweep_interval=timedelta(hours=1)) as replica:
        last = await publish(one, flows.start(flow_id), flows.enriched(flow_id), flows.notified(flow_id))
        await mesh.until_settled("track", "decide")
        await replica.reconciler.flows.reaching(("refund", flow_id), last)
        await purge(two, FlowStore(two, mesh.catalog), flow_id)
        late = flows.notified(flow_id)
        await publish(two, late)
        found = await eventually(lambda: quarantined(one), lambda kept: late.address.subject in kept)
        await mesh.until_settled("track", "decide")
    assert found[late.address.subject].reason == ARCHIVED
    assert [each.event for each in await left(one, flow_id)] == [late.event]
