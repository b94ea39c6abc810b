"""The SDK with the real fold and decisions, in memory: undos, and steps in halted flows."""

from __future__ import annotations

from datetime import timedelta

import pytest

from handrail.agents import Agent, Context, NonRetryable
from handrail.mesh.bus.expectation import last_before
from handrail.mesh.streams import FLOW
from handrail.mesh.wire.subjects import Kind, flow_filter
from handrail.testing import World
from handrail.v1.failure_pb2 import StepFailed, StepNotStarted
from payments.v1.payments_pb2 import (
    ChargebackEnriched,
    CustomerNotified,
    RefundPaid,
    RefundReversed,
)
from tests.support.agents import Chain, begun, paid, template


async def test_p8_what_fails_for_good_is_undone_under_a_key_of_its_own() -> None:
    chain = Chain()
    broken = Agent("notification")

    @broken.on(RefundPaid)
    def notify(event: RefundPaid) -> CustomerNotified:
        raise NonRetryable("no such mailbox")

    async with World(templates=[template()], agents=[chain.enrichment, chain.ledger, broken]) as world:
        flow = await begun(world)
        assert flow.status == "COMPENSATED"
        assert len(flow.recorded(RefundReversed)) == 1
    assert chain.book.balance == 0
    assert len(set(chain.book.calls)) == 2


async def test_p8_an_undo_that_crashes_is_done_again_and_money_moves_back_once() -> None:
    chain = Chain()
    broken = Agent("notification")

    @broken.on(RefundPaid)
    def notify(event: RefundPaid) -> CustomerNotified:
        world.crash_agent("ledger", "publish")
        raise NonRetryable("no such mailbox")

    async with World(templates=[template()], agents=[chain.enrichment, chain.ledger, broken]) as world:
        flow = await begun(world)
        assert flow.status == "COMPENSATING"
        await world.advance(timedelta(minutes=5))
        assert flow.status == "COMPENSATED"
    assert chain.book.balance == 0


@pytest.mark.parametrize("disturbed", [False, True], ids=["next in its flow", "behind another message"])
async def test_p8_the_report_of_an_undo_is_stored_once_whatever_comes_before_it(disturbed: bool) -> None:
    chain, calls = Chain(), 0
    ledger, broken = Agent("ledger"), Agent("notification")

    @ledger.on(ChargebackEnriched)
    def pay(event: ChargebackEnriched) -> RefundPaid:
        return paid()

    @ledger.undoes(RefundPaid)
    async def reverse(event: RefundPaid, ctx: Context) -> RefundReversed:
        nonlocal calls
        calls += 1
        if disturbed:
            await ctx.heartbeat("on its way")
        return RefundReversed(chargeback_id="c", transfer_id="t", reversal_id="r")

    @broken.on(RefundPaid)
    def notify(event: RefundPaid) -> CustomerNotified:
        raise NonRetryable("no such mailbox")

    async with World(templates=[template()], agents=[chain.enrichment, ledger, broken]) as world:
        flow = await begun(world)
        assert flow.status == "COMPENSATED"
        assert len(flow.recorded(RefundReversed)) == 1
        [report] = [m for m in world.bus.messages[FLOW] if f".{Kind.UNDONE}." in m.subject]
        assert bool(last_before(report.block, flow_filter("refund", flow.flow_id))) is not disturbed
    assert calls == 1


async def test_an_undo_that_fails_is_reported_as_such_and_tried_again() -> None:
    chain = Chain()
    ledger, attempts = Agent("ledger"), []

    @ledger.on(ChargebackEnriched)
    def pay(event: ChargebackEnriched) -> RefundPaid:
        return paid()

    @ledger.undoes(RefundPaid)
    def take_back(event: RefundPaid, ctx: Context) -> RefundReversed:
        attempts.append(ctx.attempt)
        raise ValueError("the bank is closed")

    broken = Agent("notification")

    @broken.on(RefundPaid)
    def notify(event: RefundPaid) -> CustomerNotified:
        raise NonRetryable("no such mailbox")

    async with World(templates=[template()], agents=[chain.enrichment, ledger, broken]) as world:
        flow = await begun(world)
        await world.advance(timedelta(minutes=5))
        assert attempts == [1, 2]
        [effect] = flow.flow.undo_targets()
        assert [failure.undo_of for failure in flow.recorded(StepFailed)] == ["", *[effect.recorded.event_id] * 2]
        assert flow.status == "ESCALATED"


async def test_p7_a_first_delivery_in_a_halted_flow_is_answered_and_not_run() -> None:
    chain = Chain()
    async with World(templates=[template()], agents=chain.agents) as world:
        world.stop_agent("ledger")
        flow = await begun(world)
        await world.cancel(flow, reason="never mind")
        await world.start_agent("ledger")
        assert [message.text for message in flow.recorded(StepNotStarted)] == ["the flow is halted"]
        assert flow.status == "CANCELLED"
    assert chain.book.calls == []


async def test_p8_what_may_have_started_runs_again_in_a_halted_flow_and_is_undone_then() -> None:
    chain = Chain()
    async with World(templates=[template()], agents=chain.agents) as world:
        world.crash_agent("ledger", "publish")
        flow = await begun(world)
        assert chain.book.balance == 250
        await world.cancel(flow, reason="never mind")
        assert flow.status == "COMPENSATING"
        await world.advance(timedelta(seconds=40))
        assert flow.status == "CANCELLED"
    assert chain.book.balance == 0


async def test_an_irreversible_step_does_not_start_in_a_halted_flow_even_without_the_hint() -> None:
    chain = Chain()
    async with World(templates=[template()], agents=chain.agents) as world:
        world.stop_agent("notification")
        flow = await begun(world)
        await world.cancel(flow, reason="never mind", keep_effects=True)
        world._agents["notification"].hints.flow_ids.clear()
        await world.start_agent("notification")
        assert chain.outbox == []
