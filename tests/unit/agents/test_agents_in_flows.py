"""The SDK with the real fold and decisions, in memory: what agents do when all goes well, and when it does not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from handrail.agents import Agent, Context, DeclarationError
from handrail.mesh.errors import HandrailError
from handrail.mesh.wire.subjects import Kind
from handrail.testing import FlowView, World
from handrail.v1.failure_pb2 import StepCompleted
from payments.v1.payments_pb2 import (
    ChargebackEnriched,
    ChargebackReceived,
    CustomerNotified,
    LargeRefundGranted,
    RefundPaid,
)
from tests.support.agents import AMOUNT, CHAIN, Chain, begun, notified, paid, received, template


def kinds(flow: FlowView) -> list[tuple[Kind, str]]:
    return [(recorded.kind, recorded.type.rpartition(".")[2]) for recorded in flow.history]


async def test_p1_a_happy_flow_is_four_messages_and_needs_no_coordinator() -> None:
    chain = Chain()
    async with World(templates=[template()], agents=chain.agents) as world:
        world.stop_coordinator()
        flow = await begun(world)
        assert flow.status == "COMPLETED"
        await world.start_coordinator()
        await world.advance(timedelta(days=2))
        assert flow.status == "COMPLETED"
        assert kinds(flow) == [
            (Kind.EVENT, "ChargebackReceived"),
            (Kind.EVENT, "ChargebackEnriched"),
            (Kind.EVENT, "RefundPaid"),
            (Kind.EVENT, "CustomerNotified"),
        ]
    assert chain.book.balance == 250


@pytest.mark.parametrize("seed", range(10))
async def test_p4_flows_end_the_same_in_whatever_order_things_are_delivered(seed: int) -> None:
    chain = Chain()
    async with World(templates=[template()], agents=chain.agents, seed=seed) as world:
        flows = [await begun(world) for _ in range(5)]
        assert [flow.status for flow in flows] == ["COMPLETED"] * 5
        assert not any(flow.flow.void for flow in flows)
    assert chain.book.balance == 5 * 250


async def test_p3_a_second_start_with_the_same_key_is_the_same_flow() -> None:
    chain = Chain()
    detection = Agent("detection")
    async with World(templates=[template()], agents=[*chain.agents, detection]) as world:
        first = await detection.start_flow("refund", received(), key="cb-1")
        second = await detection.start_flow("refund", received("another"), key="cb-1")
        await world.settle()
        assert second.flow_id == first.flow_id
        assert (first.already_started, second.already_started) == (False, True)
        assert len(world.flow("refund", first.flow_id).history) == 4


async def test_an_agent_that_the_template_does_not_list_starts_no_flow() -> None:
    chain = Chain()
    async with World(templates=[template()], agents=chain.agents):
        with pytest.raises(HandrailError, match="agent ledger may not start refund") as refused:
            await chain.ledger.start_flow("refund", received())
        assert refused.value.reason_name == "WRONG_AGENT"


async def test_p5_a_flow_can_not_start_with_an_event_that_breaks_its_contract() -> None:
    detection = Agent("detection")
    async with World(templates=[template()], agents=[detection]) as world:
        with pytest.raises(HandrailError, match="chargeback_id") as refused:
            await detection.start_flow("refund", ChargebackReceived(account_id="a", amount=AMOUNT), key="k")
        assert refused.value.reason_name == "CONTRACT_VIOLATION"
        assert not world.bus.messages["FLOW"]


async def test_a_handler_that_returns_nothing_completes_its_step() -> None:
    text = CHAIN.replace("    emits: [payments.v1.ChargebackEnriched]\n", "").replace(
        "after: [payments.v1.ChargebackEnriched]", "after: [payments.v1.ChargebackReceived]"
    )
    agent = Agent("enrichment")

    @agent.on(ChargebackReceived)
    def enrich(event: ChargebackReceived) -> None:
        return

    chain = Chain()

    ledger = Agent("ledger")

    @ledger.on(ChargebackReceived)
    def pay(event: ChargebackReceived) -> RefundPaid:
        return paid()

    @ledger.undoes(RefundPaid)
    def take_back(event: RefundPaid) -> None:
        return

    async with World(templates=[template(text)], agents=[agent, ledger, chain.notification]) as world:
        flow = await begun(world)
        assert flow.recorded(StepCompleted) == [StepCompleted()]
        assert flow.status == "COMPLETED"


async def test_a_plain_handler_may_wait_for_what_the_context_offers() -> None:
    chain = Chain()
    seen: list[str] = []
    notification = Agent("notification")

    @notification.on(RefundPaid)
    def notify(event: RefundPaid, ctx: Context) -> CustomerNotified:
        ctx.wait(ctx.heartbeat("writing"))
        enriched = ctx.wait(ctx.latest(ChargebackEnriched))
        assert enriched is not None
        seen.append(enriched.email)
        return notified()

    async with World(templates=[template()], agents=[chain.enrichment, chain.ledger, notification]) as world:
        flow = await begun(world)
        assert flow.status == "COMPLETED"
    assert seen == ["kim@example.com"]


async def test_handlers_that_do_not_fit_the_template_are_found_at_once() -> None:
    with pytest.raises(DeclarationError, match=r"step enrich belongs to agent enrichment"):
        async with World(templates=[template()], agents=[Agent("enrichment")]):
            pass


async def test_sources_begin_flows() -> None:
    chain = Chain()
    detection = Agent("detection")

    @detection.source
    async def feed() -> None:
        for number in range(3):
            await detection.start_flow("refund", received(f"cb-{number}"), key=f"cb-{number}")

    async with World(templates=[template()], agents=[*chain.agents, detection]) as world:
        await world.run_sources("detection")
        await world.run_sources("detection")
    assert len(chain.outbox) == 3


async def test_the_context_knows_its_flow() -> None:
    chain = Chain()
    notification = Agent("notification")
    seen: list[object] = []

    @notification.on(RefundPaid)
    async def notify(event: RefundPaid, ctx: Context) -> CustomerNotified:
        flow = await ctx.flow()
        seen.extend(
            [ctx.flow_type, ctx.step, ctx.template_version, len(flow.facts), await ctx.latest(LargeRefundGranted)]
        )
        return notified()

    async with World(templates=[template()], agents=[chain.enrichment, chain.ledger, notification]) as world:
        await begun(world)
    assert seen == ["refund", "notify", 1, 3, None]
