"""The SDK with the real fold and decisions, in memory: heartbeats of handlers."""

from __future__ import annotations

from datetime import timedelta

from handrail.agents import Agent, Context, NonRetryable
from handrail.mesh.wire.subjects import Kind
from handrail.testing import World
from handrail.v1.failure_pb2 import StepFailed, StepProgress
from payments.v1.payments_pb2 import (
    ChargebackEnriched,
    CustomerNotified,
    RefundPaid,
)
from tests.support.agents import Chain, begun, paid, template


async def test_a_heartbeat_moves_the_deadline_and_is_durable_once_in_a_third_of_the_timeout() -> None:
    chain = Chain()
    ledger = Agent("ledger")

    @ledger.on(ChargebackEnriched)
    async def pay(event: ChargebackEnriched, ctx: Context) -> RefundPaid:
        for number in range(60):
            world.bus.now += timedelta(seconds=1)
            await ctx.heartbeat(f"{number} of 60")
        return paid()

    @ledger.undoes(RefundPaid)
    async def take_back(event: RefundPaid) -> None:
        return

    async with World(templates=[template()], agents=[chain.enrichment, ledger, chain.notification]) as world:
        flow = await begun(world)
        await world.advance(timedelta(minutes=5))
        assert flow.status == "COMPLETED"
        assert [progress.counter for progress in flow.recorded(StepProgress)] == [1, 2, 3, 4, 5, 6]
        assert flow.recorded(StepProgress)[0].note == "0 of 60"
        assert flow.recorded(StepFailed) == []


async def test_a_heartbeat_moves_the_deadline_of_an_undo_too() -> None:
    chain = Chain()
    ledger, broken = Agent("ledger"), Agent("notification")

    @ledger.on(ChargebackEnriched)
    async def pay(event: ChargebackEnriched) -> RefundPaid:
        return paid()

    @ledger.undoes(RefundPaid)
    async def take_back(event: RefundPaid, ctx: Context) -> None:
        for _ in range(20):
            world.bus.now += timedelta(seconds=5)
            await ctx.heartbeat()

    @broken.on(RefundPaid)
    def notify(event: RefundPaid) -> CustomerNotified:
        raise NonRetryable("no such mailbox")

    async with World(templates=[template()], agents=[chain.enrichment, ledger, broken]) as world:
        flow = await begun(world)
        await world.advance(timedelta(minutes=5))
        assert flow.status == "COMPENSATED"
        assert [recorded.event.attempt for recorded in flow.history if recorded.kind is Kind.UNDO] == [1]
        assert len(flow.recorded(StepProgress)) == 10
