"""Publishing an answer: once, whoever else answers at the same time, and however long the broker can't take it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta

import pytest
from google.protobuf.message import Message

from handrail.agents import Agent, Context
from handrail.coordinator.decide import operator_requests
from handrail.coordinator.decide.caller import Caller
from handrail.mesh.bus.publish import Stored
from handrail.mesh.errors import BrokerPermission, BrokerUnavailable, HandrailError, StreamFull, TooLarge
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import pack
from handrail.mesh.wire.subjects import Address, Kind
from handrail.testing import FlowView, World
from handrail.v1.event_pb2 import Event
from handrail.v1.failure_pb2 import Divergence, DivergenceKind, StepFailed
from payments.v1.payments_pb2 import (
    ChargebackReceived,
    CustomerNotified,
    LargeRefundGranted,
    RefundPaid,
    SmallRefundGranted,
)
from tests.support.agents import AMOUNT, notified, paid, received, template

DIFFERENT = DivergenceKind.DIVERGENCE_KIND_DIFFERENT_ANSWER
LATE = DivergenceKind.DIVERGENCE_KIND_LATE_OUTCOME

OPERATOR = Caller("olga")

GRANT = """
name: refund
version: 1
starts_with: [payments.v1.ChargebackReceived]
started_by: [detection]
completes_with: [payments.v1.SmallRefundGranted]
deadline: 86400s
steps:
  - {name: grant, agent: refunds, after: [payments.v1.ChargebackReceived],
     emits: [payments.v1.SmallRefundGranted, payments.v1.LargeRefundGranted], effect: NONE, timeout: 30s}
"""

PAY = """
name: refund
version: 1
starts_with: [payments.v1.ChargebackReceived]
started_by: [detection]
completes_with: [payments.v1.CustomerNotified]
deadline: 86400s
steps:
  - {name: pay, agent: ledger, after: [payments.v1.ChargebackReceived], emits: [payments.v1.RefundPaid],
     effect: UNDOABLE, timeout: 30s, undo: {timeout: 30s, emits: [payments.v1.RefundReversed]}}
  - {name: tell, agent: notification, after: [payments.v1.RefundPaid], emits: [payments.v1.CustomerNotified],
     effect: NONE, timeout: 30s}
"""

_NAMES = {"chargeback_id": "cb-1", "account_id": "acc-1", "email": "kim@example.com"}


def small(units: int = 250) -> SmallRefundGranted:
    granted = SmallRefundGranted(**_NAMES, amount=AMOUNT)
    granted.amount.units = units
    return granted


def large() -> LargeRefundGranted:
    granted = LargeRefundGranted(**_NAMES, amount=AMOUNT)
    granted.amount.units = 5000
    return granted


async def twin_answers(
    world: World, ctx: Context, agent: str, message: Message, *, index: int = 0, total: int = 1
) -> None:
    """Store what another process, at work on the same step run, answers."""
    root = ids.start_id(ctx.flow_id)
    event_id = ids.outcome_id(ctx.flow_id, ctx.step, root, 0, index)
    address = Address("refund", ctx.flow_id, Kind.EVENT, agent, event_id, message.DESCRIPTOR.full_name)
    event = Event(
        event_id=event_id,
        source=agent,
        flow_type="refund",
        flow_id=ctx.flow_id,
        template_version=1,
        step=ctx.step,
        root=root,
        attempt=1,
        output_index=index,
        output_total=total,
        causation_id=root,
        data=pack(message),
    )
    await world.bus.publish(address.subject, event.SerializeToString())


async def begun(world: World) -> FlowView:
    return await world.start("refund", received(), by="detection")


@pytest.mark.parametrize("mine", [large(), small(251)], ids=["another type", "other content"])
async def test_p3_the_first_of_two_different_answers_wins_and_the_other_is_a_divergence(mine: Message) -> None:
    refunds = Agent("refunds")

    @refunds.on(ChargebackReceived)
    async def grant(event: ChargebackReceived, ctx: Context) -> SmallRefundGranted | LargeRefundGranted:
        await twin_answers(world, ctx, "refunds", small(250))
        return mine  # type: ignore[return-value]

    async with World(templates=[template(GRANT)], agents=[refunds]) as world:
        flow = await begun(world)
        assert flow.facts(SmallRefundGranted) == [small(250)]
        assert flow.recorded(LargeRefundGranted) == []
        [divergence] = flow.recorded(Divergence)
        assert divergence.kind == DIFFERENT
        assert divergence.stored_type == "payments.v1.SmallRefundGranted"
        assert divergence.stored_digest == ids.content_digest(pack(small(250)).value)
        assert divergence.refused_type == mine.DESCRIPTOR.full_name
        assert divergence.refused_digest == ids.content_digest(pack(mine).value)
        assert flow.recorded(StepFailed) == []
        assert flow.status == "COMPLETED"


async def test_p3_the_same_answer_twice_is_one_fact_and_no_divergence() -> None:
    refunds = Agent("refunds")

    @refunds.on(ChargebackReceived)
    async def grant(event: ChargebackReceived, ctx: Context) -> SmallRefundGranted:
        await twin_answers(world, ctx, "refunds", small(250))
        return small(250)

    async with World(templates=[template(GRANT)], agents=[refunds]) as world:
        flow = await begun(world)
        assert flow.facts(SmallRefundGranted) == [small(250)]
        assert flow.recorded(Divergence) == []
        assert flow.status == "COMPLETED"


async def test_p3_after_a_different_first_output_the_others_are_not_published() -> None:
    refunds = Agent("refunds")

    @refunds.on(ChargebackReceived)
    async def grant(event: ChargebackReceived, ctx: Context) -> list[SmallRefundGranted]:
        await twin_answers(world, ctx, "refunds", small(1), total=1)
        return [small(2), small(3), small(4)]

    async with World(templates=[template(GRANT)], agents=[refunds]) as world:
        flow = await begun(world)
        assert flow.recorded(SmallRefundGranted) == [small(1)]
        assert len(flow.recorded(Divergence)) == 1


async def test_p3_another_number_of_outputs_is_another_answer() -> None:
    refunds = Agent("refunds")

    @refunds.on(ChargebackReceived)
    async def grant(event: ChargebackReceived, ctx: Context) -> list[SmallRefundGranted]:
        await twin_answers(world, ctx, "refunds", small(1), total=1)
        return [small(1), small(2)]

    async with World(templates=[template(GRANT)], agents=[refunds]) as world:
        flow = await begun(world)
        assert flow.recorded(SmallRefundGranted) == [small(1)]
        assert [divergence.kind for divergence in flow.recorded(Divergence)] == [DIFFERENT]


async def test_p8_an_answer_for_a_flow_that_was_halted_meanwhile_is_a_divergence_even_if_it_is_the_same() -> None:
    ledger = Agent("ledger")

    @ledger.on(ChargebackReceived)
    async def pay(event: ChargebackReceived, ctx: Context) -> RefundPaid:
        await twin_answers(world, ctx, "ledger", paid())
        flow = world.flow("refund", ctx.flow_id)
        # The handler's own effect comes after the undo: nobody but the SDK can know.
        await world.coordinator.operator_actions.record(
            "refund", flow.flow_id, operator_requests.cancelling, caller=OPERATOR
        )
        return paid()

    @ledger.undoes(RefundPaid)
    async def take_back(event: RefundPaid) -> None:
        return

    notification = Agent("notification")

    @notification.on(RefundPaid)
    async def tell(event: RefundPaid) -> CustomerNotified:
        return notified()

    async with World(templates=[template(PAY)], agents=[ledger, notification]) as world:
        flow = await begun(world)
        assert [divergence.kind for divergence in flow.recorded(Divergence)] == [LATE]


PASSING: list[HandrailError] = [
    StreamFull("FLOW", "maximum bytes exceeded"),
    BrokerUnavailable("no answer"),
    BrokerPermission("flow.refund.x"),
]


class Refusing:
    """A publish that is refused a few times before it works."""

    def __init__(self, world: World, agent: str, error: HandrailError, times: int) -> None:
        bus = world._agents[agent].bus
        self.error = error
        self.left = times
        self.store, self.store_nowait = bus.publish, bus.publish_nowait
        bus.publish, bus.publish_nowait = self.publish, self.publish_nowait  # type: ignore[assignment]

    async def publish(
        self,
        subject: str,
        body: bytes,
        *,
        expected_sequence: int | None = None,
        expected_filter: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        if self.left:
            self.left -= 1
            raise self.error
        return await self.store(
            subject, body, expected_sequence=expected_sequence, expected_filter=expected_filter, headers=headers
        )

    def publish_nowait(
        self,
        subject: str,
        body: bytes,
        on_stored: Stored,
        *,
        expected_sequence: int | None = None,
        expected_filter: str | None = None,
    ) -> None:
        if self.left:
            self.left -= 1
            asyncio.get_running_loop().call_soon(on_stored, self.error)
        else:
            self.store_nowait(
                subject, body, on_stored, expected_sequence=expected_sequence, expected_filter=expected_filter
            )


@pytest.mark.parametrize("error", PASSING, ids=lambda error: error.reason_name)
async def test_what_the_broker_can_not_take_now_is_published_later_and_the_handler_runs_once(
    error: HandrailError,
) -> None:
    calls = 0
    refunds = Agent("refunds")

    @refunds.on(ChargebackReceived)
    async def grant(event: ChargebackReceived) -> SmallRefundGranted:
        nonlocal calls
        calls += 1
        return small()

    async with World(templates=[template(GRANT)], agents=[refunds]) as world:
        refusing = Refusing(world, "refunds", error, times=7)
        flow = await begun(world)
        assert refusing.left == 0
        assert flow.status == "COMPLETED"
        assert flow.recorded(StepFailed) == []
    assert calls == 1


async def test_what_waits_for_the_broker_is_handed_back_when_the_worker_stops() -> None:
    refunds = Agent("refunds")

    @refunds.on(ChargebackReceived)
    async def grant(event: ChargebackReceived) -> SmallRefundGranted:
        world._agents["refunds"].patience.stop()
        return small()

    async with World(templates=[template(GRANT)], agents=[refunds]) as world:
        Refusing(world, "refunds", PASSING[0], times=1)
        flow = await begun(world)
        await world.advance(timedelta(seconds=1))
        assert flow.status == "COMPLETED", "it was handed back at once, and handled again"
        assert flow.recorded(StepFailed) == []


async def test_an_answer_that_is_too_large_is_a_failure() -> None:
    refunds = Agent("refunds")

    @refunds.on(ChargebackReceived)
    async def grant(event: ChargebackReceived) -> SmallRefundGranted:
        return small()

    async with World(templates=[template(GRANT)], agents=[refunds]) as world:
        Refusing(world, "refunds", TooLarge("flow.refund", 2_000_000, 1_000_000), times=2)
        flow = await begun(world)
        [failure] = flow.recorded(StepFailed)
        assert failure.error_class == "TOO_LARGE"
        assert not failure.retryable
