"""The SDK with the real fold and decisions, in memory: what agents do when all goes well, and when it does not."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import pytest

from handrail.agents import Agent, Context, DeclarationError, NonRetryable, QuickRetries
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow, RunState
from handrail.mesh.wire.subjects import Kind
from handrail.testing import FlowView, World
from handrail.v1.failure_pb2 import StepCompleted, StepFailed, StepNotStarted, StepProgress
from payments.v1.payments_pb2 import (
    ChargebackEnriched,
    ChargebackReceived,
    CustomerNotified,
    LargeRefundGranted,
    RefundPaid,
    RefundReversed,
    SmallRefundGranted,
)
from tests.support.agents import AMOUNT, CHAIN, Chain, enriched, notified, paid, received, template

NO_RETRY = ("retry: {max_attempts: 3, initial_backoff: 1s}", "retry: {max_attempts: 1}")


async def begun(world: World) -> FlowView:
    return await world.start("refund", received(), by="detection")


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


async def test_p8_a_crash_before_the_publish_runs_the_handler_again_under_the_same_key() -> None:
    chain = Chain()
    async with World(templates=[template()], agents=chain.agents) as world:
        world.stop_coordinator()
        world.crash_agent("ledger", "publish")
        flow = await begun(world)
        assert flow.status == "RUNNING"
        await world.advance(timedelta(minutes=1))
        assert flow.status == "COMPLETED"
    assert len(chain.book.calls) == 2
    assert len(set(chain.book.calls)) == 1
    assert chain.book.balance == 250


@pytest.mark.parametrize("late, began", [(timedelta(seconds=7.5), 0), (timedelta(seconds=7.6), 1)])
async def test_a_handler_that_begins_late_says_so_first_and_a_punctual_one_says_nothing(
    late: timedelta, began: int
) -> None:
    """A quarter of the 30 s that the step may take is late: its time runs from there."""
    chain = Chain()
    async with World(templates=[template()], agents=chain.agents) as world:
        world.stop_agent("enrichment")
        flow = await begun(world)
        await world.advance(late)
        await world.start_agent("enrichment")
        assert flow.status == "COMPLETED"
        assert [progress.began for progress in flow.recorded(StepProgress)] == [True] * began


async def test_p7_what_no_thread_is_free_for_is_told_to_the_flow_and_handed_back() -> None:
    agent = Agent("enrichment")

    @agent.on(ChargebackReceived)
    def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        return enriched()

    soon = "effect: NONE\n    timeout: 0.1s"
    async with World(
        templates=[template(CHAIN, ("effect: NONE\n    timeout: 30s", soon))], agents=[*Chain().agents[1:], agent]
    ) as world:
        taken = world._threads.place()
        await taken.take()
        flow = await begun(world)
        assert [progress.waiting for progress in flow.recorded(StepProgress)] == [True]
        assert [run.state for run in flow.flow.runs.values()] == [RunState.OWED]
        taken.give_up()
        await world.advance(timedelta(seconds=1))
        assert flow.status == "COMPLETED"


async def test_p3_a_lost_ack_does_not_run_a_step_that_is_done() -> None:
    chain = Chain()
    async with World(templates=[template()], agents=chain.agents) as world:
        world.crash_agent("ledger", "ack")
        flow = await begun(world)
        await world.advance(timedelta(minutes=10))
        assert flow.status == "COMPLETED"
        assert len(flow.history) == 4
    assert len(chain.book.calls) == 1


async def test_p8_a_retry_by_the_coordinator_comes_with_the_same_key_and_the_next_attempt() -> None:
    seen: list[tuple[int, str]] = []
    agent = Agent("enrichment")

    @agent.on(ChargebackReceived)
    async def enrich(event: ChargebackReceived, ctx: Context) -> ChargebackEnriched:
        seen.append((ctx.attempt, ctx.idempotency_key))
        if ctx.attempt < 3:
            raise ValueError("not yet")
        return enriched()

    chain = Chain()
    async with World(templates=[template()], agents=[agent, chain.ledger, chain.notification]) as world:
        flow = await begun(world)
        await world.advance(timedelta(minutes=1))
        assert flow.status == "COMPLETED"
        assert [failure.text for failure in flow.recorded(StepFailed)] == ["not yet", "not yet"]
        assert {failure.error_class for failure in flow.recorded(StepFailed)} == {"ValueError"}
    assert [attempt for attempt, _ in seen] == [1, 2, 3]
    assert len({key for _, key in seen}) == 1


async def test_a_blip_is_retried_before_anybody_hears_of_it() -> None:
    calls = 0
    agent = Agent("enrichment", quick_retries=QuickRetries(retries=2))

    @agent.on(ChargebackReceived)
    async def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise ConnectionResetError("blip")
        return enriched()

    chain = Chain()
    async with World(templates=[template()], agents=[agent, chain.ledger, chain.notification]) as world:
        flow = await begun(world)
        assert flow.status == "COMPLETED"
        assert flow.recorded(StepFailed) == []


async def test_a_blip_that_lasts_is_a_failure() -> None:
    agent = Agent("enrichment")

    @agent.on(ChargebackReceived)
    def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        raise TimeoutError("the register does not answer")

    async with World(templates=[template(CHAIN, NO_RETRY)], agents=[agent]) as world:
        flow = await begun(world)
        [failure] = flow.recorded(StepFailed)
        assert failure.retryable
        assert failure.text == "the register does not answer"
        assert flow.status == "ESCALATED"


async def test_a_handler_that_says_so_is_not_tried_again() -> None:
    agent = Agent("enrichment")

    @agent.on(ChargebackReceived)
    def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        raise NonRetryable("no such account")

    async with World(templates=[template()], agents=[agent]) as world:
        flow = await begun(world)
        [failure] = flow.recorded(StepFailed)
        assert not failure.retryable
        assert flow.status == "ESCALATED"


async def test_p5_an_answer_that_breaks_its_contract_is_a_failure_that_names_field_and_rule() -> None:
    agent = Agent("ledger")

    @agent.on(ChargebackEnriched)
    async def pay(event: ChargebackEnriched) -> RefundPaid:
        return RefundPaid(chargeback_id="cb-1", account_id="acc-1", amount=AMOUNT, transfer_id="", email="nobody")

    @agent.undoes(RefundPaid)
    async def take_back(event: RefundPaid) -> RefundReversed:
        raise AssertionError("nothing was published that could be undone")

    chain = Chain()
    async with World(templates=[template()], agents=[agent, chain.enrichment]) as world:
        flow = await begun(world)
        [failure] = flow.recorded(StepFailed)
        assert failure.error_class == "CONTRACT_VIOLATION"
        assert "transfer_id" in failure.text
        assert "string.min_len" in failure.text
        assert "string.email" in failure.text
        assert not failure.retryable
        assert failure.outcome_unknown, "the handler has done its work"
        assert flow.recorded(RefundPaid) == []


async def test_p5_an_answer_that_the_step_does_not_emit_is_a_failure() -> None:
    agent = Agent("enrichment")

    @agent.on(ChargebackReceived)
    async def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        return paid()  # type: ignore[return-value]  # a lie

    async with World(templates=[template()], agents=[agent]) as world:
        flow = await begun(world)
        [failure] = flow.recorded(StepFailed)
        assert failure.error_class == "WRONG_AGENT"
        assert "allows payments.v1.ChargebackEnriched" in failure.text


async def test_something_else_than_a_message_is_a_failure() -> None:
    agent = Agent("enrichment")

    @agent.on(ChargebackReceived)
    async def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        return "done"  # type: ignore[return-value]  # a lie

    async with World(templates=[template()], agents=[agent]) as world:
        flow = await begun(world)
        [failure] = flow.recorded(StepFailed)
        assert "must answer with a message, several, or nothing" in failure.text


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


LONG = template(CHAIN, ("effect: UNDOABLE\n    timeout: 30s", "effect: UNDOABLE\n    timeout: 3600s"))


async def test_p7_what_kills_its_process_each_time_fails_as_the_templates_retry_says() -> None:
    chain = Chain()
    attempts: list[int] = []
    ledger = Agent("ledger")

    @ledger.on(ChargebackEnriched)
    async def pay(event: ChargebackEnriched, ctx: Context) -> RefundPaid:
        attempts.append(ctx.attempt)
        world.crash_agent("ledger", "publish")
        return paid()

    @ledger.undoes(RefundPaid)
    async def take_back(event: RefundPaid) -> None:
        return

    async with World(templates=[LONG], agents=[chain.enrichment, ledger, chain.notification]) as world:
        flow = await begun(world)
        await world.advance(timedelta(minutes=10))
        failures = flow.recorded(StepFailed)
        assert [(failure.error_class, failure.retryable) for failure in failures] == [("Poison", True)] * 3
        assert all(failure.outcome_unknown for failure in failures)
        assert flow.flow.runs["pay", flow.history[1].event_id].state is RunState.FAILED
        began = [progress for progress in flow.recorded(StepProgress) if progress.began]
        assert len(began) == len(attempts) - 1, "every start but the first one is on record"
    assert attempts == [1, 1, 1, 1, 2, 3], "once known as poison, one more death is enough"


async def test_deliveries_that_began_no_handler_make_no_poison() -> None:
    chain = Chain()
    async with World(templates=[LONG], agents=chain.agents) as world:
        world.crash_agent("ledger", "publish")
        flow = await begun(world)
        store = world._agents["ledger"].store
        load, left = store.load, 12

        async def timing_out(flow_type: str, flow_id: str, *, at_least: int = 0, up_to: int | None = None) -> Flow:
            nonlocal left
            left -= 1
            if left >= 0:
                raise TimeoutError("no answer to a read")
            return await load(flow_type, flow_id, at_least=at_least, up_to=up_to)

        store.load = timing_out  # type: ignore[method-assign]
        await world.advance(timedelta(hours=2))
        assert left < 0
        assert flow.recorded(StepFailed) == []
        assert flow.status == "COMPLETED"
    assert len(chain.book.calls) == 2
    assert chain.book.balance == 250


class Panic(BaseException):
    """As code in another language raises it."""


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    "raised", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, asyncio.CancelledError, Panic]
)
async def test_whatever_a_handler_raises_is_a_failed_attempt(raised: type[BaseException], plain: bool) -> None:
    chain, calls = Chain(), list[int]()
    enrichment = Agent("enrichment")

    def enrich(event: ChargebackReceived, ctx: Context) -> ChargebackEnriched:
        calls.append(ctx.attempt)
        if ctx.attempt == 1:
            raise raised("odd")
        return enriched(event.chargeback_id)

    async def enrich_in_loop(event: ChargebackReceived, ctx: Context) -> ChargebackEnriched:
        return enrich(event, ctx)

    enrichment.on(ChargebackReceived)(enrich if plain else enrich_in_loop)
    async with World(templates=[template()], agents=[enrichment, chain.ledger, chain.notification]) as world:
        flow = await begun(world)
        await world.advance(timedelta(seconds=10))
        assert flow.status == "COMPLETED"
        [failure] = flow.recorded(StepFailed)
        assert failure.retryable
        assert failure.error_class in (raised.__name__, "RuntimeError")
    assert calls == [1, 2]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize("error", [Unspeakable(), ValueError("\udcff is no character"), type("", (Exception,), {})()])
async def test_a_failure_is_reported_whatever_its_error_says(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    # What pytest captures of the log goes between its processes, which such a text can't.
    monkeypatch.setattr(logging.getLogger("handrail.agents.outcomes"), "disabled", True)
    chain = Chain()
    enrichment = Agent("enrichment")

    @enrichment.on(ChargebackReceived)
    def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        raise error

    async with World(templates=[template()], agents=[enrichment, chain.ledger, chain.notification]) as world:
        flow = await begun(world)
        await world.advance(timedelta(minutes=1))
        assert len(flow.recorded(StepFailed)) == 3
        assert not flow.flow.void


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
