"""Starting a flow on a real server: once a key, and not to be kept from it by an agent that may not start it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from handrail.mesh.bus import NatsBus
from handrail.mesh.streams import KEY as KEYS
from handrail.mesh.streams import ensure_streams, start_flow
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.template import Template
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry, pack
from handrail.mesh.wire.subjects import COORDINATOR, Address, Kind, key_subject
from handrail.v1.event_pb2 import CallerRequest, Event
from payments.v1.payments_pb2 import ChargebackEnriched
from tests.support import flows
from tests.support.lagging import BehindNatsBus
from tests.support.mesh import Mesh, name_of_status, publish
from tests.support.nats_server import NatsCluster
from tests.support.purging import left, purge

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
    assert (flow.requester, flow.key) == ("olga", KEY)
    assert name_of_status(flow) == "RUNNING"
    assert len(flow.void) == 1
    assert (await start(mesh)).already_started


CALL = CallerRequest(id="6b2d7a0e-0f3e-4f7a-9a53-0c8d2f6f1b11", caller="olga", rpc="StartFlow", digest="d")


async def call(mesh: Mesh) -> start_flow.Started:
    """Start a flow without a key, by a call with a request id."""
    template = await mesh.catalog.active("refund")
    return await start_flow.start(
        mesh.bus, template, source=COORDINATOR, data=pack(flows.received()), requester="olga", request=CALL
    )


@pytest.mark.parametrize("begin", [start, call], ids=["by its key", "by the same call"])
async def test_p3_a_purged_flow_is_not_begun_again(
    mesh: Mesh, begin: Callable[[Mesh], Awaitable[start_flow.Started]]
) -> None:
    first = await begin(mesh)
    await purge(mesh.bus, mesh.store, first.flow_id)
    again = await begin(mesh)
    assert (again.flow_id, again.sequence, again.already_started) == (first.flow_id, first.sequence, True)
    assert await left(mesh.bus, first.flow_id) == []


async def test_p3_a_key_that_was_forgotten_before_the_purge_is_recorded_again(mesh: Mesh) -> None:
    first = await start(mesh)
    await mesh.bus.request_json(f"$JS.API.STREAM.DELETE.{KEYS}")
    await ensure_streams(mesh.bus)
    [begun] = await purge(mesh.bus, mesh.store, first.flow_id)
    assert begun.event.key_hash == ids.key_hash("refund", KEY)
    assert (await start(mesh)).already_started
    assert await left(mesh.bus, first.flow_id) == []


async def test_p7_a_key_whose_first_start_stored_nothing_else_begins_its_flow(mesh: Mesh) -> None:
    await mesh.bus.publish(key_subject("refund", ids.key_hash("refund", KEY)), b"")
    started = await start(mesh)
    assert not started.already_started
    assert len(await left(mesh.bus, started.flow_id)) == 1


async def test_a_flow_with_a_random_id_needs_no_record(mesh: Mesh) -> None:
    template = await mesh.catalog.active("refund")
    started = await start_flow.start(mesh.bus, template, source="detection", data=pack(flows.received()))
    await purge(mesh.bus, mesh.store, started.flow_id)
    assert await mesh.messages(KEYS) == 0


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

        await purge(contenders[0], mesh.store, started[0].flow_id)
        calls = (begin(bus, key, source) for bus, source in zip(contenders, sources, strict=True))
        assert {(each.already_started, each.sequence) for each in await asyncio.gather(*calls)} == {
            (True, started[0].sequence)
        }
        assert await mesh.store.newest("refund", started[0].flow_id) == 0
