"""The SDK with the real fold and decisions, in memory: processes that crash, start late or have no free thread."""

from __future__ import annotations

from datetime import timedelta

import pytest

from handrail.agents import Agent, Context
from handrail.mesh.flow import Flow, RunState
from handrail.testing import World
from handrail.v1.failure_pb2 import StepFailed, StepProgress
from payments.v1.payments_pb2 import (
    ChargebackEnriched,
    ChargebackReceived,
    RefundPaid,
)
from tests.support.agents import CHAIN, Chain, begun, enriched, paid, template


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
