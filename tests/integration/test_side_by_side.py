"""Workers of the old and the new kind under one agent's name, on a real server: flows of both versions end."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from handrail.agents import Agent, Context
from handrail.mesh.streams import start_flow
from handrail.mesh.wire.envelope import pack
from payments.v1.payments_pb2 import (
    ChargebackReceived,
    RefundPaid,
    RefundReversed,
    SmallRefundGranted,
)
from tests.support.agents import AMOUNT, CHAIN, Chain, paid, received, template
from tests.support.mesh import Mesh, workers
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually

FLOWS = 6

# The second version grants at once: other messages go between the agents, the last one undoes nothing any more.
OLD = template()
NEW = template(
    CHAIN.replace("payments.v1.ChargebackEnriched", "payments.v1.SmallRefundGranted"), ("version: 1", "version: 2")
)


@dataclass
class NewKind:
    """The agents of the second version; they know nothing of the first."""

    served: Counter[int] = field(default_factory=Counter)

    @property
    def agents(self) -> tuple[Agent, ...]:
        """All whose handlers differ, under the names of the old ones."""
        enrichment, ledger = Agent("enrichment"), Agent("ledger")

        @enrichment.on(ChargebackReceived)
        async def grant(event: ChargebackReceived, ctx: Context) -> SmallRefundGranted:
            self.served[ctx.template_version] += 1
            return SmallRefundGranted(
                chargeback_id=event.chargeback_id, account_id="acc-1", amount=AMOUNT, email="kim@example.com"
            )

        @ledger.on(SmallRefundGranted)
        async def pay(event: SmallRefundGranted, ctx: Context) -> RefundPaid:
            self.served[ctx.template_version] += 1
            return paid(f"new-{ctx.idempotency_key}", event.chargeback_id)

        @ledger.undoes(RefundPaid)
        async def take_back(event: RefundPaid) -> RefundReversed:
            raise AssertionError("nothing is undone here")

        return (enrichment, ledger)


async def begin(mesh: Mesh, count: int = FLOWS) -> list[str]:
    """Begin flows of the version that is active."""
    active = await mesh.catalog.active("refund")
    begun = (start_flow.start(mesh.bus, active, source="detection", data=pack(received())) for _ in range(count))
    return [each.flow_id for each in await asyncio.gather(*begun)]


async def all_completed(mesh: Mesh, flow_ids: list[str], version: int) -> None:
    """Every flow completes, by four facts, in the version that it began with."""
    for flow_id in flow_ids:
        flow = await mesh.until_status(flow_id, "COMPLETED")
        assert (flow.template.version, len(flow.facts)) == (version, 4)


async def test_flows_of_both_versions_end_after_an_activation_and_after_a_rollback(
    mesh: Mesh, nats_server: NatsServer
) -> None:
    old, new = Chain(), NewKind()
    await mesh.put(OLD)
    async with workers(nats_server.settings, old.agents):
        # Forward: flows of version 1 are under way when version 2 is activated and its workers come.
        before = await begin(mesh)
        await mesh.put(NEW)
        async with workers(nats_server.settings, new.agents):
            after = await begin(mesh)
            await all_completed(mesh, before, 1)
            await all_completed(mesh, after, 2)
            # Back: flows of version 2 are under way when version 1 is activated again.
            under_way = await begin(mesh)
            await mesh.put(OLD)
            rolled_back = await begin(mesh)
            await all_completed(mesh, under_way, 2)
            await all_completed(mesh, rolled_back, 1)
            for agent in ("enrichment", "ledger", "notification"):
                await mesh.until_settled(agent)
    assert new.served == {2: 2 * 2 * FLOWS}, "the new workers did nothing for the old version"
    assert len(old.book.calls) == 2 * FLOWS, "and the old ones nothing for the new"


async def test_either_kind_can_be_started_anew_whichever_version_is_active(
    mesh: Mesh, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = Chain(), NewKind()
    await mesh.put(OLD)
    before = await begin(mesh, 1)
    await mesh.put(NEW)
    after = await begin(mesh, 1)
    async with workers(nats_server.settings, old.agents):
        await all_completed(mesh, before, 1)
    assert "version 2: step pay belongs to agent ledger" in caplog.text
    await mesh.put(OLD)
    async with workers(nats_server.settings, [*new.agents, old.notification]):
        await all_completed(mesh, after, 2)


async def test_what_no_worker_fits_waits_for_one_that_does(mesh: Mesh, nats_server: NatsServer) -> None:
    new = NewKind()
    await mesh.put(OLD, NEW)
    async with workers(nats_server.settings, new.agents):
        await mesh.put(OLD)
        [flow_id] = await begin(mesh, 1)
        # Handed back again and again, not acknowledged, and nothing is published for it.
        info = await redelivered(mesh, "enrichment", 2)
        assert info["num_ack_pending"] == 1
        assert (await mesh.flow(flow_id)).message_count == 1
        async with workers(nats_server.settings, Chain().agents):
            await all_completed(mesh, [flow_id], 1)
    assert not new.served


async def redelivered(mesh: Mesh, agent: str, least: int) -> dict[str, Any]:
    """The durable's state once it has delivered something this many times."""

    async def read() -> dict[str, Any]:
        return await mesh.bus.request_json(f"$JS.API.CONSUMER.INFO.FLOW.agent-{agent}")

    return await eventually(read, lambda info: info["delivered"]["consumer_seq"] > least)
