"""The SDK with the real fold and decisions, in memory: steps with several outputs, and joins."""

from __future__ import annotations

from datetime import timedelta

import pytest

from handrail.agents import Agent, Context
from handrail.testing import World
from payments.v1.payments_pb2 import (
    ChargebackReceived,
    CustomerNotified,
    RefundPaid,
    SmallRefundGranted,
)
from tests.support.agents import AMOUNT, notified, paid, received, template

FAN_OUT = """
name: refund
version: 1
starts_with: [payments.v1.ChargebackReceived]
started_by: [detection]
completes_with: [payments.v1.CustomerNotified]
deadline: 86400s
steps:
  - {name: split, agent: splitter, after: [payments.v1.ChargebackReceived], emits: [payments.v1.SmallRefundGranted],
     effect: NONE, timeout: 30s}
  - {name: pay, agent: ledger, after: [payments.v1.SmallRefundGranted], emits: [payments.v1.RefundPaid],
     effect: NONE, timeout: 30s}
  - {name: tell, agent: notification, after_all: [
       {type: payments.v1.ChargebackReceived},
       {type: payments.v1.RefundPaid, count: "int(latest['payments.v1.ChargebackReceived'].amount.units)"}],
     emits: [payments.v1.CustomerNotified], effect: NONE, timeout: 30s}
"""


class Fan:
    """Splits into as many parts as the amount has units, and joins them again."""

    def __init__(self) -> None:
        self.splitter, self.ledger, self.notification = Agent("splitter"), Agent("ledger"), Agent("notification")
        self.joined: list[tuple[str, list[str]]] = []

        @self.splitter.on(ChargebackReceived)
        def split(event: ChargebackReceived) -> list[SmallRefundGranted]:
            return [
                SmallRefundGranted(
                    chargeback_id=f"part-{number}", account_id="a", amount=AMOUNT, email="kim@example.com"
                )
                for number in range(event.amount.units)
            ]

        @self.ledger.on(SmallRefundGranted)
        async def pay(event: SmallRefundGranted) -> RefundPaid:
            return paid(event.chargeback_id)

        @self.notification.on_all(ChargebackReceived, RefundPaid)
        async def tell(parts: list[RefundPaid], first: ChargebackReceived) -> CustomerNotified:
            self.joined.append((first.chargeback_id, sorted(part.transfer_id for part in parts)))
            return notified()

    @property
    def agents(self) -> tuple[Agent, ...]:
        return (self.splitter, self.ledger, self.notification)


@pytest.mark.parametrize("seed", [None, *range(8)])
@pytest.mark.parametrize("parts", [1, 3, 10])
async def test_p1_a_fan_out_is_joined_once_by_the_last_input_without_a_coordinator(
    parts: int, seed: int | None
) -> None:
    fan = Fan()
    async with World(templates=[template(FAN_OUT)], agents=fan.agents, seed=seed) as world:
        world.stop_coordinator()
        event = received()
        event.amount.units = parts
        flow = await world.start("refund", event, by="detection")
        assert flow.status == "COMPLETED"
        assert len(flow.flow.runs) == 1 + parts + 1
        outputs = [r.event.output_index for r in flow.history if r.event.step == "split"]
        assert outputs == list(range(parts))
        assert {r.event.output_total for r in flow.history if r.event.step == "split"} == {parts}
    assert fan.joined == [("cb-1", sorted(f"part-{number}" for number in range(parts)))]


async def test_p8_a_crash_in_the_middle_of_several_outputs_is_made_good() -> None:
    fan = Fan()
    async with World(templates=[template(FAN_OUT)], agents=fan.agents) as world:
        world.stop_coordinator()
        event = received()
        event.amount.units = 3
        world.crash_agent("splitter", "publish")
        flow = await world.start("refund", event, by="detection")
        assert len(flow.history) == 1
        await world.advance(timedelta(minutes=1))
        assert flow.status == "COMPLETED"


async def test_a_retried_join_gets_the_same_inputs_and_the_same_key() -> None:
    fan = Fan()
    keys: list[str] = []
    joiner = Agent("notification")

    @joiner.on_all(ChargebackReceived, RefundPaid)
    async def tell(first: ChargebackReceived, parts: list[RefundPaid], ctx: Context) -> CustomerNotified:
        keys.append(f"{ctx.idempotency_key} {sorted(part.transfer_id for part in parts)}")
        if ctx.attempt == 1:
            raise ValueError("once")
        return notified()

    text = FAN_OUT.replace(
        "emits: [payments.v1.CustomerNotified], effect: NONE, timeout: 30s",
        "emits: [payments.v1.CustomerNotified], effect: NONE, timeout: 30s, retry: {max_attempts: 2}",
    )
    async with World(templates=[template(text)], agents=[fan.splitter, fan.ledger, joiner]) as world:
        event = received()
        event.amount.units = 3
        flow = await world.start("refund", event, by="detection")
        await world.advance(timedelta(minutes=1))
        assert flow.status == "COMPLETED"
    assert len(keys) == 2
    assert len(set(keys)) == 1
