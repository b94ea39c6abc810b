"""The deliveries of a worker: those that need no wait share a task, and those that wait have one each."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from handrail.agents import Agent
from handrail.agents.in_flight import InFlight
from handrail.agents.threads import Threads
from handrail.mesh.streams import FLOW
from handrail.testing import World
from handrail.testing.hosting import HostedAgent
from handrail.testing.memory import MemoryDelivery
from payments.v1.payments_pb2 import ChargebackEnriched, ChargebackReceived
from tests.support import flows
from tests.support.agents import enriched, template
from tests.support.waiting import until

GRACE = timedelta(seconds=10)
NO_GRACE = timedelta()


class Fault(BaseException):
    """Something that no code expects."""


@dataclass
class Desk:
    """A worker's deliveries in a World without other agents. `settled` has what was settled, in order."""

    world: World
    hosted: HostedAgent
    in_flight: InFlight
    settled: list[tuple[int, timedelta | None]] = field(default_factory=list)

    async def deliveries(self, *names: str, number: int = 0) -> list[MemoryDelivery]:
        """First events of flows with these chargeback ids, or of a number of flows."""
        made = []
        for at, name in enumerate(names or map(str, range(number))):
            event = flows.received()
            event.chargeback_id = name
            entry = flows.start(f"{at:032x}", message=event)
            sequence = await self.world.publish(entry.address.subject, entry.body)
            made.append(self.delivery(sequence))
        return made

    def delivery(self, sequence: int, *, delivered: int = 1) -> MemoryDelivery:
        """A message of the stream, delivered."""
        [message] = [each for each in self.world.bus.messages[FLOW] if each.sequence == sequence]
        return MemoryDelivery(message, delivered, lambda delay: self.settled.append((sequence, delay)))

    @property
    def acked(self) -> list[int]:
        """The sequences of the messages that were acknowledged."""
        return [sequence for sequence, delay in self.settled if delay is None]

    @property
    def handed_back(self) -> list[int]:
        """The sequences of the messages that were handed back."""
        return [sequence for sequence, delay in self.settled if delay is not None]


@dataclass
class Handled:
    """What the handler saw: each chargeback id with the task. It waits for `gate` if the id begins with `waits`."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    seen: list[tuple[str, asyncio.Task[object] | None]] = field(default_factory=list)
    done: list[tuple[str, asyncio.Task[object] | None]] = field(default_factory=list)

    @property
    def agent(self) -> Agent:
        """The agent of the first step."""
        agent = Agent("enrichment")

        @agent.on(ChargebackReceived)
        async def enrich(event: ChargebackReceived) -> ChargebackEnriched:
            self.seen.append((event.chargeback_id, asyncio.current_task()))
            if event.chargeback_id.startswith("waits"):
                await self.gate.wait()
            self.done.append((event.chargeback_id, asyncio.current_task()))
            return enriched(event.chargeback_id)

        return agent


@asynccontextmanager
async def desk(agent: Agent) -> AsyncIterator[Desk]:
    """The deliveries in progress of a worker that runs this agent."""
    async with World(templates=[template()]) as world:
        threads = Threads(1)
        hosted = HostedAgent(agent, world.bus, threads)
        await hosted.learn([template()])
        yield Desk(world, hosted, InFlight(hosted.engine, timedelta(seconds=30)))
        threads.shutdown()


async def test_handlers_that_do_not_wait_share_one_task_and_all_are_acked() -> None:
    handled = Handled()
    async with desk(handled.agent) as case:
        for delivery in await case.deliveries(number=50):
            case.in_flight.take(delivery)
        assert await case.in_flight.drain(GRACE) == 0
        assert (len(case.acked), case.in_flight.in_hand) == (50, 0)
    assert len({task for _, task in handled.seen}) == 1


async def test_p7_a_handler_that_waits_does_not_hold_up_those_behind_it() -> None:
    handled = Handled()
    async with desk(handled.agent) as case:
        deliveries = await case.deliveries("a", "waits 1", "b", "waits 2", "c")
        for delivery in deliveries:
            case.in_flight.take(delivery)
        await until(lambda: len(case.acked) == 3)
        assert [name for name, _ in handled.done] == ["a", "b", "c"]
        assert case.in_flight.in_hand == 2
        handled.gate.set()
        assert await case.in_flight.drain(GRACE) == 0
        assert len(case.acked) == 5


async def test_a_handler_that_waits_keeps_its_task_to_its_end_and_shares_it_with_none_that_comes_later() -> None:
    handled = Handled()
    async with desk(handled.agent) as case:
        for delivery in await case.deliveries("waits 1", "waits 2", "a"):
            case.in_flight.take(delivery)
        await until(lambda: len(case.acked) == 1)
        handled.gate.set()
        await case.in_flight.drain(GRACE)
    began, ended = dict(handled.seen), dict(handled.done)
    assert began == ended
    assert len(set(began.values())) == 3


async def test_calls_of_a_handler_that_waited_get_tasks_of_their_own_for_a_while() -> None:
    handled = Handled()
    async with desk(handled.agent) as case:
        [first, *others] = await case.deliveries("waits", *map(str, range(80)))
        case.in_flight.take(first)
        await until(lambda: handled.seen)
        for delivery in others:
            case.in_flight.take(delivery)
        handled.gate.set()
        await case.in_flight.drain(GRACE)
        assert len(case.acked) == 81
    tasks = [task for _, task in handled.seen]
    assert len(set(tasks[:51])) == 51
    assert len(set(tasks[51:])) < len(tasks[51:])


async def test_p3_a_message_that_comes_again_meanwhile_is_handled_once() -> None:
    handled = Handled()
    async with desk(handled.agent) as case:
        [delivery] = await case.deliveries("waits")
        case.in_flight.take(delivery)
        await until(lambda: handled.seen)
        case.in_flight.take(case.delivery(delivery.sequence, delivered=2))
        handled.gate.set()
        await case.in_flight.drain(GRACE)
        assert len(handled.seen) == 1
        assert case.settled == [(delivery.sequence, None), (delivery.sequence, timedelta())]


async def test_what_is_not_done_within_the_grace_is_cancelled_and_handed_back() -> None:
    handled = Handled()
    async with desk(handled.agent) as case:
        deliveries = await case.deliveries("waits 1", "a", "waits 2")
        for delivery in deliveries:
            case.in_flight.take(delivery)
        await until(lambda: len(handled.seen) == 3)
        assert await case.in_flight.drain(NO_GRACE) == 2
        assert sorted(case.handed_back) == [deliveries[0].sequence, deliveries[2].sequence]
    assert [name for name, _ in handled.done] == ["a"]


async def test_p8_an_answer_that_nobody_has_confirmed_within_the_grace_is_handed_back() -> None:
    handled = Handled()
    async with desk(handled.agent) as case:
        case.hosted.bus.publish_nowait = lambda *_, **__: None  # type: ignore[method-assign]
        [delivery] = await case.deliveries("a")
        case.in_flight.take(delivery)
        await until(lambda: handled.done)
        assert case.settled == []
        assert await case.in_flight.drain(NO_GRACE) == 0
        assert case.handed_back == [delivery.sequence]


async def test_a_delivery_that_is_done_is_freed_without_a_garbage_collection() -> None:
    handled = Handled()
    handled.gate.set()
    async with desk(handled.agent) as case:
        deliveries = await case.deliveries(*[f"{kind}{number}" for number in range(20) for kind in ("waits", "a")])
        gc.collect()
        gc.disable()
        try:
            for delivery in deliveries:
                case.in_flight.take(delivery)
            del delivery, deliveries
            assert await case.in_flight.drain(GRACE) == 0
            handled.seen.clear()
            handled.done.clear()
            assert gc.collect() < len(case.acked)
        finally:
            gc.enable()


async def test_p7_a_fault_in_one_delivery_does_not_stop_those_behind_it() -> None:
    handled = Handled()
    async with desk(handled.agent) as case:
        begin, faults = case.hosted.engine.begin, [Fault()]

        def faulty(*arguments: object) -> object:
            if faults:
                raise faults.pop()
            return begin(*arguments)  # type: ignore[arg-type]

        case.hosted.engine.begin = faulty  # type: ignore[method-assign, assignment]
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        for delivery in await case.deliveries("a", "b"):
            case.in_flight.take(delivery)
        await until(lambda: len(case.acked) == 1)
        assert case.in_flight.in_hand == 0
