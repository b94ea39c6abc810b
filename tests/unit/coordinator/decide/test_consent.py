"""P8: a step whose effect stands runs a second time only if somebody said so, naming it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from handrail.agents import Agent
from handrail.coordinator.api.views import compensation_plan
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import FLOW
from handrail.testing import FlowView, World
from handrail.v1.decision_pb2 import Choice, FlowHalted, Resolved
from handrail.v1.error_reason_pb2 import ErrorReason
from payments.v1.payments_pb2 import CustomerNotified, RefundPaid
from tests.support.agents import Chain, notified, received, template

RESUME = Choice.CHOICE_RESUME


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """The chain of three steps, the last one irreversible."""
    chain = Chain()
    async with World(templates=[template()], agents=[chain.enrichment, chain.ledger, chain.notification]) as world:
        yield world


async def needs_consent(world: World, flow: FlowView, asked: object) -> None:
    """What is asked for is refused with the step's name, and leaves nothing in the flow."""
    before = len(world.bus.messages[FLOW])
    with pytest.raises(HandrailError, match="notify") as refusal:
        await asked  # type: ignore[misc]
    assert refusal.value.reason == ErrorReason.ERROR_REASON_CONSENT_NEEDED
    assert refusal.value.metadata["steps"] == "notify"
    assert len(world.bus.messages[FLOW]) == before


async def test_p8_going_back_behind_what_can_not_be_undone_wants_it_named(world: World) -> None:
    flow = await world.start("refund", received())
    assert flow.status == "COMPLETED"
    plan = compensation_plan(flow.flow, "enrich")
    assert [effect.step for effect in plan.run_again] == ["notify"]
    assert not compensation_plan(flow.flow, "").run_again, "undone as a whole it does not go on"

    await needs_consent(world, flow, world.compensate(flow, to_step="enrich"))
    await needs_consent(world, flow, world.compensate(flow, to_step="enrich", run_again=["pay"]))
    await world.compensate(flow, to_step="enrich", run_again=["notify"])
    assert [halted.run_again for halted in flow.recorded(FlowHalted)] == [["notify"]]
    await world.resolve(flow, RESUME)
    assert flow.status == "COMPLETED"
    assert len(flow.recorded(CustomerNotified)) == 2


async def test_p8_undoing_all_or_going_back_behind_nothing_of_that_kind_wants_no_consent(world: World) -> None:
    flow = await world.start("refund", received())
    await world.compensate(flow)
    assert flow.status == "COMPENSATED"
    other = await world.start("refund", received("cb-2"))
    await world.compensate(other, to_step="notify")
    assert not flow.flow.effects_that_stay(flow.flow.last_sequence)


async def test_p8_doing_a_step_again_whose_effect_stands_wants_it_named(world: World) -> None:
    flow = await world.start("refund", received())
    await needs_consent(world, flow, world.retry_step(flow, "notify"))
    await world.retry_step(flow, "notify", run_again=["notify"])
    assert len(flow.recorded(CustomerNotified)) == 2


async def test_p8_what_became_known_after_going_back_is_asked_for_on_resuming() -> None:
    chain = Chain()
    notification = Agent("notification")

    @notification.on(RefundPaid)
    async def tell(event: RefundPaid) -> CustomerNotified:
        return notified(event.chargeback_id)

    async with World(templates=[template()], agents=[chain.enrichment, chain.ledger, notification]) as world:
        world.crash_agent("notification", "publish")
        flow = await world.start("refund", received())
        await world.compensate(flow, to_step="enrich")
        await world.advance(timedelta(seconds=30))  # the message comes again, and its outcome becomes known
        assert flow.status == "ESCALATED"
        await needs_consent(world, flow, world.resolve(flow, RESUME))
        await world.resolve(flow, RESUME, run_again=["notify"])
        assert flow.recorded(Resolved)[-1].run_again == ["notify"]
        assert len(flow.recorded(CustomerNotified)) == 2


async def test_p8_doing_a_step_again_that_can_be_undone_wants_no_consent(world: World) -> None:
    flow = await world.start("refund", received())
    await world.retry_step(flow, "pay")
    assert len(flow.recorded(RefundPaid)) == 2
