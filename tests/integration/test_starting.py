"""Starting a flow on a real server: once a key, and not to be kept from it by an agent that may not start it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from handrail.mesh.bus import NatsBus
from handrail.mesh.streams import ensure_streams, start_flow
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.template import Template
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry, pack
from handrail.mesh.wire.subjects import COORDINATOR, Address, Kind
from handrail.v1.event_pb2 import Event
from payments.v1.payments_pb2 import ChargebackEnriched
from tests.support import flows
from tests.support.lagging import BehindNatsBus
from tests.support.mesh import Mesh, name_of_status, publish
from tests.support.nats_server import NatsCluster

KEY = "c-1"


@pytest.fixture
async def mesh(mesh: Mesh) -> Mesh:
    """The refund of two steps, stored and active."""
    await mesh.put(flows.template())
    return mesh


def squatter(version: int) -> Entry:
    """An outcome that the enrichment agent may publish, under the id of the first event of the key's flow."""
    flow_id = ids.flow_id_from_key("refund", KEY)
    name = ChargebackEnriched.DESCRIPTOR.full_name
    address = Address("refund", flow_id, Kind.EVENT, "enrichment", ids.start_id(flow_id), name)
    return Entry(
        address,
        Event(
            event_id=address.event_id,
            source="enrichment",
            flow_type="refund",
            flow_id=flow_id,
            template_version=version,
            output_total=1,
            data=pack(ChargebackEnriched()),
        ),
    )


async def start(mesh: Mesh) -> start_flow.Started:
    """Start the flow of the key, as the coordinator does."""
    template = await mesh.catalog.active("refund")
    return await start_flow.start(
        mesh.bus, template, source=COORDINATOR, data=pack(flows.received()), key=KEY, requester="olga"
    )


async def test_p3_a_key_begins_one_flow(mesh: Mesh) -> None:
    first, second = await start(mesh), await start(mesh)
    assert (first.already_started, second.already_started) == (False, True)
    assert (first.flow_id, first.sequence) == (second.flow_id, second.sequence)


@pytest.mark.parametrize("version", [1, 99], ids=["a known version", "an unknown version"])
async def test_p7_an_agent_that_may_not_start_a_flow_does_not_keep_others_from_it(mesh: Mesh, version: int) -> None:
    taken = squatter(version)
    await publish(mesh.bus, taken)
    started = await start(mesh)
    assert not started.already_started
    flow = await mesh.flow(started.flow_id)
    assert flow.requester == "olga"
    assert name_of_status(flow) == "RUNNING"
    assert len(flow.void) == 1
    assert (await start(mesh)).already_started


RACES = 12


@pytest.fixture
async def contenders(nats_cluster: NatsCluster) -> AsyncIterator[list[BehindNatsBus]]:
    """Four connections to three servers, whose reads are answered by replicas that lag."""
    async with AsyncExitStack() as stack:
        buses: list[BehindNatsBus] = []
        for number in range(4):
            settings = nats_cluster.servers[number % 3].settings("coordinator")
            bus = BehindNatsBus((await stack.enter_async_context(await NatsBus.connect(settings))).connection)
            buses.append(bus)
        await ensure_streams(buses[0], replicas=3)
        yield buses


async def test_p3_on_three_servers_an_agent_and_the_api_begin_one_flow_of_a_key(
    contenders: list[BehindNatsBus],
) -> None:
    catalog = Catalog(contenders[0])
    mesh = Mesh(contenders[0], catalog)
    await mesh.put(flows.template())

    async def begin(bus: BehindNatsBus, key: str, source: str) -> start_flow.Started:
        bus.lag(reads=4)
        template: Template = await catalog.active("refund")
        requester = "olga" if source == COORDINATOR else ""
        return await start_flow.start(
            bus, template, source=source, data=pack(flows.received()), key=key, requester=requester
        )

    for number in range(RACES):
        key, sources = f"race-{number}", (COORDINATOR, "detection", COORDINATOR, "detection")
        calls = (begin(bus, key, source) for bus, source in zip(contenders, sources, strict=True))
        started = await asyncio.gather(*calls)
        assert sorted(each.already_started for each in started) == [False, True, True, True]
        assert len({(each.flow_id, each.sequence) for each in started}) == 1
        history = await mesh.store.read("refund", started[0].flow_id, at_least=started[0].sequence)
        assert len(history) == 1, [recorded.address.subject for recorded in history]
