"""Durable consumers on a real server."""

import asyncio
from typing import Any

from handrail.mesh.bus import Delivery, NatsBus
from handrail.mesh.streams import FLOW, TIMER
from handrail.mesh.streams.durables import DECIDE, DUE, TRACK, agent_filters, coordinator_filters, ensure_durables
from tests.conftest import Connect
from tests.support import flows
from tests.support.nats_server import NatsServer
from tests.support.waiting import until


async def config(bus: NatsBus, stream: str, durable: str) -> dict[str, Any]:
    answer: dict[str, Any] = (await bus.request_json(f"$JS.API.CONSUMER.INFO.{stream}.{durable}"))["config"]
    return answer


async def filters(bus: NatsBus, durable: str) -> set[str]:
    return set((await config(bus, FLOW, durable))["filter_subjects"])


async def test_one_call_makes_every_durable(bus: NatsBus) -> None:
    await ensure_durables(bus, [flows.template(gated=True)])
    for agent, subjects in agent_filters([flows.template(gated=True)]).items():
        assert await filters(bus, f"agent-{agent}") == subjects
    for durable in (DECIDE, TRACK):
        assert await filters(bus, durable) == coordinator_filters()[durable]
    assert (await config(bus, TIMER, DUE))["filter_subjects"] == ["due.>"]


async def test_filters_are_only_ever_added(bus: NatsBus) -> None:
    await ensure_durables(bus, [flows.template("refund")])
    await ensure_durables(bus, [flows.template("audit")])
    both = agent_filters([flows.template("refund"), flows.template("audit")])["enrichment"]
    assert await filters(bus, "agent-enrichment") == both
    before = await config(bus, FLOW, "agent-enrichment")
    await ensure_durables(bus, [flows.template("audit")])
    assert await config(bus, FLOW, "agent-enrichment") == before


async def test_replicas_that_start_at_once_agree(nats_server: NatsServer, bus: NatsBus, connect: Connect) -> None:
    buses = [bus, *[await connect(nats_server.settings(f"coordinator{number}")) for number in range(3)]]
    templates = [flows.template("refund"), flows.template("audit")]
    await asyncio.gather(*(ensure_durables(each, templates) for each in buses))
    assert await filters(bus, "agent-enrichment") == agent_filters(templates)["enrichment"]


async def test_an_addition_loses_nothing_that_is_under_way(bus: NatsBus) -> None:
    await ensure_durables(bus, [flows.template("refund")])
    seen: list[Delivery] = []

    def on_delivery(delivery: Delivery) -> None:
        seen.append(delivery)
        delivery.ack()

    pull = await bus.pull(FLOW, "agent-enrichment", in_flight=10, on_delivery=on_delivery)
    first = [flows.start(f"{number:032x}") for number in range(200)]
    publishing = asyncio.gather(*(bus.publish(entry.address.subject, entry.body) for entry in first))
    await ensure_durables(bus, [flows.template("audit")])
    await publishing
    second = flows.start(flow_type="audit")
    await bus.publish(second.address.subject, second.body)
    await until(lambda: len(seen) == 201)
    assert {delivery.subject for delivery in seen} == {entry.address.subject for entry in (*first, second)}
    await pull.stop()


async def test_a_durable_delivers_what_was_stored_before_it_was_there(bus: NatsBus) -> None:
    entry = flows.start()
    await bus.publish(entry.address.subject, entry.body)
    await ensure_durables(bus, [flows.template()])
    seen: list[Delivery] = []
    pull = await bus.pull(FLOW, "agent-enrichment", in_flight=1, on_delivery=seen.append)
    await until(lambda: seen)
    assert seen[0].body == entry.body
    await pull.stop()
