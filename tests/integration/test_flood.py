"""P7: one agent that publishes more than the coordinators can follow does not keep others waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest

from handrail.cli.main import main
from handrail.coordinator.api.health import Health
from handrail.mesh.bus import NatsBus
from handrail.mesh.contracts import Contracts
from handrail.mesh.streams import FLOW, ensure_streams
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.template import Template
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.subjects import Kind
from payments.v1.payments_pb2 import ChargebackEnriched, ChargebackReceived, CustomerNotified
from tests.conftest import Connect
from tests.integration.test_health import NOT_SERVING, ListRequest, ListResponse
from tests.support import flows
from tests.support.api import running_api
from tests.support.coordinator import coordinating
from tests.support.mesh import Mesh, name_of_status, publish, publish_at_once
from tests.support.nats_server import NatsCluster, running_server
from tests.support.waiting import eventually

NUMBER = 6000
"""Flows of the flood: more than `track` takes at once, and many seconds of work."""

IN_HAND = 200
"""More than a replica has of `decide` at once."""

REFUSED = """authorization { users: [{ user: u, password: p, permissions: { publish: { deny: [
    "$JS.API.CONSUMER.INFO.FLOW.decide-beside", "$JS.API.CONSUMER.INFO.FLOW.track-beside"
] } } }] }"""
"""A broker that does not answer for the consumers beside the durables."""

CALM = "calm"
"""The flow type, and the agent, that are no part of the flood."""


def of_another(name: str) -> Template:
    """The gated refund under this name, and with an agent of this name."""
    proto = flows.template(name, gated=True).proto
    proto.steps[0].agent = name
    messages = [ChargebackReceived, ChargebackEnriched, CustomerNotified]
    return Template.compile(proto, Contracts.from_messages(messages))


def flood() -> Iterable[Entry]:
    """Proposals of one agent, each in a flow of its own."""
    for number in range(NUMBER):
        flow_id = ids.flow_id_from_key("refund", str(number))
        yield flows.start(flow_id)
        yield flows.enriched(flow_id, kind=Kind.PROPOSAL)


def proposed(flow_id: str, name: str = CALM) -> Entry:
    """The proposal of another agent, in a flow of its own type."""
    entry = flows.enriched(flow_id, flow_type=name, kind=Kind.PROPOSAL)
    entry.event.source = name
    return Entry(entry.address._replace(agent=name), entry.event)


async def passes_by(mesh: Mesh, number: int) -> bool:
    """Proposes as the other agent, and waits until a person is asked.

    Returns whether `decide` itself has not come that far yet.
    """
    flow_id = ids.flow_id_from_key(CALM, str(number))
    sequence = await publish(mesh.bus, flows.start(flow_id, flow_type=CALM), proposed(flow_id))
    await eventually(lambda: mesh.store.load(CALM, flow_id), lambda flow: name_of_status(flow) == "WAITING_APPROVAL")
    return int((await mesh.durable("decide"))["delivered"]["stream_seq"]) < sequence


async def test_p7_a_proposal_passes_by_the_flood_of_another_agent(mesh: Mesh) -> None:
    await mesh.put(flows.template(gated=True), of_another(CALM))
    await publish_at_once(mesh.bus, flood())
    async with coordinating(mesh.bus, is_killed=True) as replica:
        assert await passes_by(mesh, 1)
        assert await passes_by(mesh, 2)
        assert "share.enrichment" in replica.notices()


async def test_p7_a_proposal_passes_by_two_floods_on_two_replicas(mesh: Mesh) -> None:
    await mesh.put(flows.template(gated=True), of_another(CALM), of_another("second"))
    second = [ids.flow_id_from_key("second", str(number)) for number in range(NUMBER)]
    await publish_at_once(mesh.bus, flood())
    await publish_at_once(mesh.bus, [flows.start(each, flow_type="second") for each in second])
    await publish_at_once(mesh.bus, [proposed(each, "second") for each in second])
    async with (
        coordinating(mesh.bus, is_killed=True, holder="one") as one,
        coordinating(mesh.bus, is_killed=True, holder="two") as two,
    ):
        assert await passes_by(mesh, 1)
        assert await passes_by(mesh, 2)
        assert {"share.enrichment", "share.second"} <= one.notices().keys() | two.notices().keys()


async def test_p7_a_lost_consumer_beside_a_durable_is_made_anew(mesh: Mesh) -> None:
    await mesh.put(flows.template(gated=True), of_another(CALM))
    await publish_at_once(mesh.bus, flood())
    async with coordinating(mesh.bus, is_killed=True):
        assert await passes_by(mesh, 1)
        await mesh.bus.request_json(f"$JS.API.CONSUMER.DELETE.{FLOW}.decide-beside")
        assert await passes_by(mesh, 2)


async def test_p7_the_coordinator_serves_while_the_broker_has_no_consumer_beside_a_durable(
    connect: Connect, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running_server(tmp_path / "nats", accounts=REFUSED) as server:
        bus = await connect(server.settings(user="u", password="p"))
        await ensure_streams(bus)
        mesh = Mesh(bus, Catalog(bus))
        await mesh.put(flows.template(gated=True))
        await publish_at_once(bus, flood())
        async with coordinating(bus, is_killed=True) as replica:
            await eventually(lambda: asyncio.sleep(0, "others wait in decide too" in caplog.text))
            left = await mesh.unsettled("decide")
            await eventually(lambda: mesh.unsettled("decide"), lambda now: now < max(1, left - IN_HAND))
            assert list(replica.troubles) == []
    for durable in ("decide", "track"):
        assert caplog.text.count(f"others wait in {durable} too") <= 1


@pytest.mark.timeout(240)
async def test_p7_the_consumer_beside_a_durable_outlives_a_server(
    nats_cluster: NatsCluster, cluster_bus: NatsBus
) -> None:
    mesh, beside = Mesh(cluster_bus, Catalog(cluster_bus)), f"$JS.API.CONSUMER.INFO.{FLOW}.decide-beside"
    await mesh.put(flows.template(gated=True), of_another(CALM))
    await publish_at_once(cluster_bus, flood())
    async with coordinating(cluster_bus, is_killed=True) as replica:
        assert await passes_by(mesh, 1)
        before = await cluster_bus.request_json(beside)
        nats_cluster.named(before["cluster"]["leader"]).kill()
        assert await passes_by(mesh, 2)
        after = await cluster_bus.request_json(beside, timeout=timedelta(seconds=60))
        assert after["created"] == before["created"]
        assert not {each.loop for each in replica.troubles} & {"decide-beside", "track-beside"}


async def test_p7_an_agent_that_sends_too_much_is_told_and_leaves_the_coordinator_serving(
    mesh: Mesh, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await mesh.put(flows.template(gated=True))
    await publish_at_once(mesh.bus, flood())
    async with running_api(mesh.bus, tmp_path) as api:
        health = Health(mesh.bus, api.server, api.replica.diagnosis(), notices=api.replica.notices)
        await eventually(lambda: asyncio.sleep(0, "share.enrichment" in api.replica.notices()))
        list_them = api.channel.unary_unary(
            "/grpc.health.v1.Health/List",
            request_serializer=ListRequest.SerializeToString,
            response_deserializer=ListResponse.FromString,
        )

        async def down() -> set[str]:
            await health.look(thorough=True)
            answer = await list_them(ListRequest())
            return {name for name, each in answer.statuses.items() if each.status == NOT_SERVING}

        found = await eventually(down)
        assert "handrail.part.share.enrichment" in found
        assert found <= {"handrail.part.share.enrichment", "handrail.part.share.detection"}
        assert await asyncio.to_thread(main, ["health", "coordinator", "--address", api.address]) == 0
        assert "share.enrichment" in capsys.readouterr().err
