"""Several coordinators on a real server: a flow's deliveries come to one of them, wherever the broker hands them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import product

import pytest

from handrail.coordinator.reconcile.replica import Replica
from handrail.mesh.bus import NatsBus
from handrail.mesh.wire import ids
from tests.conftest import Connect
from tests.support import flows
from tests.support.coordinator import coordinating
from tests.support.mesh import Mesh, publish
from tests.support.nats_server import NatsServer
from tests.support.waiting import PATIENCE, until

BODIES = (
    b"",
    b"9" * 30,
    b"\n\n\n",
    b"$JS.ACK.FLOW.decide.1.1.1.1.1\n\n",
    b"$JS.ACK.FLOW.decide.1.1.1.1.1\n\xff.\xfe\n\xff",
    b"$JS.ACK.FLOW.other.1.1.1.1.1\nflow.refund.x.event.y.z.a\n",
    b"$JS.ACK.TIMER.due.1.x.1.1.1\ndue.a.b.c\n",
)
"""What is no delivery, or one of a message that is not there."""

NUMBER = 30
"""Flows; the chance that a replica owns none of them is one in 100,000."""


@pytest.fixture
async def mesh(mesh: Mesh) -> Mesh:
    """A refund whose first step soon times out, for good."""
    await mesh.put(flows.template(timeout=timedelta(seconds=0.3), attempts=1))
    return mesh


@pytest.fixture
async def buses(nats_server: NatsServer, connect: Connect) -> list[NatsBus]:
    """A connection for each coordinator."""
    return [await connect(nats_server.settings("coordinator")) for _ in range(3)]


@pytest.fixture
async def replicas(mesh: Mesh, buses: list[NatsBus]) -> AsyncIterator[list[Replica]]:
    """Three coordinators that know each other."""
    async with AsyncExitStack() as running:
        replicas = [await running.enter_async_context(coordinating(bus)) for bus in buses]
        await until(lambda: all(len(replica.sharing) == 3 for replica in replicas))
        yield replicas


def flow_ids(number: int = NUMBER) -> list[str]:
    """The ids of some flows."""
    return [ids.flow_id_from_key("refund", str(index)) for index in range(number)]


async def begin(mesh: Mesh) -> None:
    """Starts the flows. Nobody answers: a coordinator has to decide."""
    await asyncio.gather(*(publish(mesh.bus, flows.start(flow_id)) for flow_id in flow_ids()))


async def until_escalated(mesh: Mesh, *, within: float = PATIENCE) -> None:
    """Waits until a person is asked about each flow."""
    await asyncio.gather(*(mesh.until_status(flow_id, "ESCALATED", within=within) for flow_id in flow_ids()))


def in_hand(replica: Replica) -> set[str]:
    """The flows that a replica has in hand."""
    return {flow_id for flow_id in flow_ids() if replica.reconciler.flows.get(("refund", flow_id)) is not None}


async def test_each_flow_is_in_one_hand_and_all_replicas_have_some(mesh: Mesh, replicas: list[Replica]) -> None:
    await begin(mesh)
    await until_escalated(mesh)
    hands = [in_hand(replica) for replica in replicas]
    assert all(hands)
    assert sorted(flow_id for hand in hands for flow_id in hand) == sorted(flow_ids())


async def test_a_replica_that_leaves_hands_its_flows_to_the_others_at_once(mesh: Mesh, buses: list[NatsBus]) -> None:
    async with coordinating(buses[0]) as stays:
        async with coordinating(buses[1]):
            await until(lambda: len(stays.sharing) == 2)
        await until(lambda: len(stays.sharing) == 1)
        await begin(mesh)
        await until_escalated(mesh)
        assert in_hand(stays) == set(flow_ids())


@pytest.mark.timeout(120)
async def test_p2_a_killed_owner_costs_an_ack_wait_and_no_flow(mesh: Mesh, buses: list[NatsBus]) -> None:
    async with coordinating(buses[0]) as stays:
        async with coordinating(buses[1], is_killed=True):
            await until(lambda: len(stays.sharing) == 2)
            await buses[1].close()
            await begin(mesh)
        await until_escalated(mesh, within=90)
        assert len(stays.sharing) == 1


async def test_what_is_no_delivery_is_ignored(mesh: Mesh, replicas: list[Replica], buses: list[NatsBus]) -> None:
    connection = buses[0].connection
    for member in replicas[0].sharing:
        for rest, body in product(("x", "x.room", "x.decide", "x.due", "x.track.y"), BODIES):
            connection.send(f"own.{member}.{rest}", body)
    for word in (b"", b"+", b"-", b"+" + b"x" * 5000, b"\xff\xfe", b"?"):
        connection.send("own.members", word)
    await connection.flush(timedelta(seconds=5))
    await begin(mesh)
    await until_escalated(mesh)
    assert {len(replica.sharing) for replica in replicas} == {3}


async def test_owners_make_room_for_what_they_were_handed(mesh: Mesh, replicas: list[Replica]) -> None:
    entries = [entry for flow_id in flow_ids(400) for entry in (flows.start(flow_id), flows.enriched(flow_id))]
    await asyncio.gather(*(mesh.bus.publish(entry.address.subject, entry.body) for entry in entries))
    await mesh.until_settled("track")
    assert await until(lambda: not any(replica.handed_over for replica in replicas))
