"""The SDK with the real fold and decisions, in memory: retries, failures, and answers that break the contract."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import pytest

from handrail.agents import Agent, Context, NonRetryable, QuickRetries
from handrail.testing import World
from handrail.v1.failure_pb2 import StepFailed
from payments.v1.payments_pb2 import (
    ChargebackEnriched,
    ChargebackReceived,
    RefundPaid,
    RefundReversed,
)
from tests.support.agents import AMOUNT, CHAIN, Chain, begun, enriched, paid, template

NO_RETRY = ("retry: {max_attempts: 3, initial_backoff: 1s}", "retry: {max_attempts: 1}")


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
