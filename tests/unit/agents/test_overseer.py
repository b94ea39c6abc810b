"""Handlers of an attempt that is over, or of a halted flow, are told, are cancelled and release what they hold."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from handrail.agents import Agent, Context
from handrail.agents.overseer import Overseer
from handrail.agents.threads import Threads
from handrail.mesh.bus import RawMessage
from handrail.mesh.streams import FLOW
from handrail.testing import FlowView, World
from handrail.testing.hosting import HostedAgent
from handrail.testing.memory import MemoryDelivery
from handrail.v1.failure_pb2 import StepNotStarted, StepProgress
from payments.v1.payments_pb2 import ChargebackEnriched, ChargebackReceived, RefundPaid
from tests.support.agents import Chain, begun, enriched, paid, template
from tests.support.waiting import until

TIMEOUT = timedelta(seconds=30)


class AtWork:
    """A handler at work in a flow, in a worker of its own beside the world, so that time can pass meanwhile."""

    def __init__(self, world: World, flow: FlowView, hosted: HostedAgent, delivery: MemoryDelivery) -> None:
        self.world = world
        self.flow = flow
        self.overseer: Overseer = hosted.engine.overseer
        self.delivery = delivery
        self.task = asyncio.ensure_future(hosted.handle(delivery))

    async def passes(self, duration: timedelta) -> None:
        """Let time pass, and the worker look around."""
        await self.world.advance(duration)
        await self.overseer.look_around()
        for _ in range(5):
            await asyncio.sleep(0)


@asynccontextmanager
async def at_work(agent: Agent, *, delivered: int = 1) -> AsyncIterator[AtWork]:
    """`agent` takes the place of the chain's of that name, and is handed what its step waits for."""
    chain = Chain()
    others = [each for each in chain.agents if each.name != agent.name]
    async with World(templates=[template()], agents=others) as world:
        flow = await begun(world)
        message: RawMessage = world.bus.messages[FLOW][-1]
        threads = Threads(1)
        hosted = HostedAgent(agent, world.bus, threads)
        await hosted.learn([template()])
        work = AtWork(world, flow, hosted, MemoryDelivery(message, delivered, lambda _: None))
        await asyncio.sleep(0)
        yield work
        work.task.cancel()
        threads.shutdown()


def ledger_that_waits(seen: list[Context], ends: asyncio.Event) -> Agent:
    """Its handler does not return before it is told to."""
    ledger = Agent("ledger")

    @ledger.on(ChargebackEnriched)
    async def pay(event: ChargebackEnriched, ctx: Context) -> RefundPaid:
        seen.append(ctx)
        await ends.wait()
        return paid()

    @ledger.undoes(RefundPaid)
    async def take_back(event: RefundPaid) -> None:
        return

    return ledger


async def test_an_async_handler_is_cancelled_once_its_attempt_is_over_and_frees_its_slot() -> None:
    seen: list[Context] = []
    async with at_work(ledger_that_waits(seen, asyncio.Event())) as work:
        [ctx] = seen
        assert ctx.deadline == work.world.now + TIMEOUT
        assert not ctx.cancelled.is_set()
        await work.passes(TIMEOUT - timedelta(seconds=1))
        assert not work.task.done()
        await work.passes(timedelta(seconds=1))
        assert ctx.cancelled.is_set()
        assert work.task.done()
        assert work.delivery.settled
        assert work.overseer.stuck == []


async def test_a_handler_past_its_deadline_goes_on_while_nobody_says_that_its_attempt_is_over() -> None:
    """The coordinator is away: that time does not count."""
    seen, ends = list[Context](), asyncio.Event()
    async with at_work(ledger_that_waits(seen, ends)) as work:
        work.world.stop_coordinator()
        await work.passes(TIMEOUT * 10)
        assert not seen[0].cancelled.is_set()
        ends.set()
        await work.task
        assert [recorded.type for recorded in work.flow.history][-1] == "payments.v1.RefundPaid"


async def test_a_heartbeat_moves_the_deadline_that_the_handler_sees() -> None:
    seen: list[Context] = []
    async with at_work(ledger_that_waits(seen, asyncio.Event())) as work:
        await work.passes(TIMEOUT / 2)
        await seen[0].heartbeat()
        assert seen[0].deadline == work.world.now + TIMEOUT
        await work.passes(TIMEOUT - timedelta(seconds=1))
        assert not work.task.done()


async def test_a_start_on_record_is_said_to_be_handed_back_when_its_attempt_is_over() -> None:
    seen: list[Context] = []
    async with at_work(ledger_that_waits(seen, asyncio.Event()), delivered=2) as work:
        await until(lambda: bool(seen))
        await work.passes(TIMEOUT)
        began, ended = work.flow.recorded(StepProgress)
        assert (began.began, ended.handed_back) == (True, True)
        run = next(run for run in work.flow.flow.runs.values() if run.step.name == "pay")
        assert not run.starts.alone, "it was slow; it killed nobody"


async def test_a_step_without_an_effect_is_cancelled_when_its_flow_is_cancelled() -> None:
    seen: list[Context] = []
    enrichment = Agent("enrichment")

    @enrichment.on(ChargebackReceived)
    async def enrich(event: ChargebackReceived, ctx: Context) -> ChargebackEnriched:
        seen.append(ctx)
        await asyncio.Event().wait()
        return enriched()

    async with at_work(enrichment) as work:
        await work.world.cancel(work.flow)
        work.overseer.heard(work.flow.flow_id)
        await work.passes(timedelta())
        assert seen[0].cancelled.is_set()
        assert work.task.done()
        assert [message.text for message in work.flow.recorded(StepNotStarted)] == ["the flow is halted"]


async def test_a_step_with_an_effect_is_told_of_a_halt_and_answers_so_that_it_can_be_undone() -> None:
    seen, ends = list[Context](), asyncio.Event()
    async with at_work(ledger_that_waits(seen, ends)) as work:
        await work.world.cancel(work.flow)
        work.overseer.heard(work.flow.flow_id)
        await work.passes(timedelta())
        assert seen[0].cancelled.is_set()
        assert not work.task.done()
        ends.set()
        await work.task
        assert [effect.recorded.type for effect in work.flow.flow.undo_targets()] == ["payments.v1.RefundPaid"]


@pytest.mark.parametrize("plain", [True, False])
async def test_a_handler_that_does_not_end_gives_up_what_it_holds_and_is_named(
    plain: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ledger, ends, began = Agent("ledger"), threading.Event(), threading.Event()

    def in_thread(event: ChargebackEnriched) -> RefundPaid:
        began.set()
        ends.wait()
        return paid()

    async def stubborn(event: ChargebackEnriched) -> RefundPaid:
        began.set()
        while not ends.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue
        return paid()

    ledger.on(ChargebackEnriched)(in_thread if plain else stubborn)
    ledger.undoes(RefundPaid)(lambda_undo)
    async with at_work(ledger) as work:
        try:
            await until(began.is_set)
            await work.passes(TIMEOUT)
            settled_at_once = work.delivery.settled
            assert not settled_at_once, "it has a moment to clean up"
            with caplog.at_level(logging.ERROR):
                await work.passes(timedelta(seconds=5))
            assert work.delivery.settled
            [stuck] = work.overseer.stuck
            assert "step pay, attempt 1" in stuck
            assert (in_thread if plain else stubborn).__qualname__ in stuck
            assert "does not end" in caplog.text
        finally:
            ends.set()
        await until(work.task.done)
        assert work.overseer.stuck == []
        late = [recorded.type for recorded in work.flow.history if recorded.agent == "ledger"]
        assert late[-1] == "payments.v1.RefundPaid", "what it answers late is published, and settles the step"


async def lambda_undo(event: RefundPaid) -> None:
    """Nothing to undo."""


async def test_a_thread_that_is_lost_leaves_its_place_to_others() -> None:
    threads, ends = Threads(1), threading.Event()
    place = threads.place()
    lost = asyncio.ensure_future(threads.run(ends.wait, place))
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(threads.run(lambda: "done", threads.place()))
    await asyncio.sleep(0)
    assert not waiting.done()
    place.give_up()
    assert await waiting == "done"
    ends.set()
    await lost
    assert await asyncio.gather(*(threads.run(lambda: 1, threads.place()) for _ in range(3))) == [1, 1, 1]
    threads.shutdown()
