"""Undo commands that are executed without a read of the flow, and those that are not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handrail.agents import Agent, NonRetryable, plan
from handrail.agents.bindings import Bindings, bind
from handrail.agents.broker_retry import BrokerRetry
from handrail.agents.clock import Clock
from handrail.agents.halted_flows import HaltedFlows
from handrail.agents.plan import Plan, Task
from handrail.agents.planner import Planner
from handrail.mesh.flow import Verdict
from handrail.mesh.flow.work import Moment
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.history import History
from handrail.mesh.wire.envelope import Recorded, pack
from handrail.mesh.wire.subjects import Kind
from handrail.testing import World
from handrail.testing.memory import MemoryDelivery
from handrail.v1.event_pb2 import Event
from payments.v1.payments_pb2 import CustomerNotified, RefundPaid, RefundReversed
from tests.support.agents import CHAIN, Chain, begun, template
from tests.support.random_templates import Spec, compiled, specs
from tests.support.wandering import Wanderer

FRESH = timedelta(seconds=5)
QUICK = ("undo: {timeout: 30s", "undo: {timeout: 2s")


class CountingStore(FlowStore):
    """Counts the reads of flows."""

    reads = 0

    async def read(self, *arguments: object, **options: object) -> History:
        self.reads += 1
        return await super().read(*arguments, **options)  # type: ignore[arg-type]


class SetClock(Clock):
    """Shows one time."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now


@dataclass
class Asked:
    """A flow with a recorded undo command that no worker has received."""

    world: World
    chain: Chain
    command: Recorded
    store: CountingStore

    async def planned(self, command: Recorded, *, age: timedelta = timedelta(), delivered: int = 1) -> Plan:
        """What the ledger plans to do about a command of this age."""
        agent = self.chain.ledger
        planner = Planner(
            Bindings(agent.name, agent.handlers),
            store=self.store,
            clock=(clock := SetClock(command.time + age)),
            patience=BrokerRetry(clock),
            hints=HaltedFlows(),
        )
        return await planner.plan(command, delivered=delivered)


@asynccontextmanager
async def asked(*changes: tuple[str, str]) -> AsyncIterator[Asked]:
    """A flow that failed after its payment, with the command to undo it; the ledger is stopped."""
    chain = Chain()
    broken = Agent("notification")

    @broken.on(RefundPaid)
    def notify(event: RefundPaid) -> CustomerNotified:
        world.stop_agent("ledger")
        raise NonRetryable("no such mailbox")

    agents = [chain.enrichment, chain.ledger, broken]
    async with World(templates=[template(CHAIN, *changes)], agents=agents) as world:
        flow = await begun(world)
        [command] = [recorded for recorded in flow.history if recorded.kind is Kind.UNDO]
        catalog = world.coordinator.catalog
        yield Asked(world, chain, exactly(command), CountingStore(world.bus, catalog))


def exactly(command: Recorded, **fields: object) -> Recorded:
    """The command as the coordinator records it on a flow that it read to the end, with some fields changed."""
    event = Event()
    event.CopyFrom(command.event)
    event.exact = True
    for name, value in fields.items():
        setattr(event, name, value)
    return replace(command, event=event)


def without_data(command: Recorded) -> Recorded:
    """A command that would have been too large."""
    shortened = exactly(command)
    shortened.event.data.ClearField("value")
    return shortened


async def test_an_exact_undo_is_planned_without_a_read_as_it_is_with_one() -> None:
    async with asked() as case:
        at_once = await case.planned(case.command)
        assert case.store.reads == 0
        after_a_read = await case.planned(exactly(case.command, exact=False))
        assert case.store.reads == 1
    [mine], [read] = at_once.tasks, after_a_read.tasks
    assert (mine.verdict, read.verdict) == (Verdict.RUN, Verdict.RUN)
    assert mine.attempt.inputs[0].event.data == read.attempt.inputs[0].event.data
    assert mine.attempt.right_after == case.command.sequence
    assert replace(mine.attempt, inputs=read.attempt.inputs, right_after=0) == read.attempt
    moment = Moment(case.command.time)
    answer = pack(RefundReversed())
    assert mine.attempt.outcome(answer, moment=moment, total=1) == read.attempt.outcome(answer, moment=moment, total=1)


@pytest.mark.parametrize("age", [-timedelta(seconds=1), timedelta(), FRESH - timedelta(milliseconds=1)])
async def test_an_exact_undo_is_planned_without_a_read_while_it_is_fresh(age: timedelta) -> None:
    async with asked() as case:
        await case.planned(case.command, age=age)
        assert case.store.reads == 0


@pytest.mark.parametrize("age", [-timedelta(seconds=1, milliseconds=1), FRESH, timedelta(hours=1)])
async def test_p8_an_undo_that_is_old_or_ahead_of_the_clock_is_read_first(age: timedelta) -> None:
    async with asked() as case:
        await case.planned(case.command, age=age)
        assert case.store.reads == 1


async def test_p8_an_undo_as_old_as_its_timeout_is_read_first() -> None:
    async with asked(QUICK) as case:
        await case.planned(case.command, age=timedelta(seconds=1.9))
        assert case.store.reads == 0
        await case.planned(case.command, age=timedelta(seconds=2))
        assert case.store.reads == 1


async def test_p8_an_undo_that_is_not_exact_or_comes_again_is_read_first() -> None:
    async with asked() as case:
        await case.planned(exactly(case.command, exact=False))
        await case.planned(case.command, delivered=2)
        assert case.store.reads == 2


async def test_an_undo_of_a_later_attempt_or_without_its_event_is_read_first() -> None:
    async with asked() as case:
        [later] = (await case.planned(exactly(case.command, attempt=2))).tasks
        [without] = (await case.planned(without_data(case.command))).tasks
        assert case.store.reads == 2
    assert later.verdict is Verdict.DROP
    assert without.verdict is Verdict.RUN
    assert without.attempt.inputs[0].event.data == case.command.event.data


async def test_an_undo_of_a_step_that_the_version_lacks_is_read_first() -> None:
    async with asked() as case:
        await case.planned(exactly(case.command, step="enrich"))
        await case.planned(exactly(case.command, step="nothing"))
        assert case.store.reads == 2


async def test_p8_an_exact_undo_is_done_once_and_dropped_when_it_comes_again() -> None:
    async with asked() as case:
        world, hosted = case.world, case.world._agents["ledger"]
        [raw] = [message for message in world.bus.messages[FLOW] if message.sequence == case.command.sequence]
        raw = raw._replace(body=case.command.event.SerializeToString())
        settled: list[timedelta | None] = []
        for delivered in (1, 2):
            await hosted.handle(MemoryDelivery(raw, delivered, settled.append))
        assert settled == [None, None]
    assert case.chain.book.balance == 0
    assert len(case.chain.book.calls) == 2, "one payment, one undo"


@settings(max_examples=150)
@given(specs(), st.data())
def test_p4_p8_nothing_that_is_stored_after_a_fresh_undo_takes_it_back(spec: Spec, data: st.DataObject) -> None:
    wanderer = Wanderer(compiled(spec))
    wanderer.begin(data.draw(st.integers(0, 3), label="n"))
    for _ in range(data.draw(st.integers(1, 30), label="length")):
        wanderer.next_act(data).do()
    for at, command in enumerate(wanderer.simulation.history):
        if command.kind is Kind.UNDO and command.sequence not in wanderer.flow.void:
            for at_once, read, now in plans_while_fresh(wanderer, at, exactly(command)):
                assert read.verdict is at_once.verdict is Verdict.RUN
                mine, other = (task.attempt.outcome(command.event.data, moment=now) for task in (at_once, read))
                assert mine == other


def plans_while_fresh(wanderer: Wanderer, at: int, command: Recorded) -> Iterator[tuple[Task, Task, Moment]]:
    """What is planned without a read, and by a worker that reads a later state, until the worker has answered."""
    bound = bind(command.agent, [], wanderer.states[at + 1].template)
    history = wanderer.simulation.history
    for later, state in enumerate(wanderer.states[at + 1 :], at):
        news = history[later]
        answered = news.kind in (Kind.UNDONE, Kind.FAILURE) and news.event.root == command.event.root
        at_once = plan.undone_at_once(command, bound, agent=command.agent, delivered=1, now=news.time)
        if at_once is None or answered:
            return
        [read] = plan.undone(state, command, agent=command.agent, delivered=1).tasks
        yield at_once.tasks[0], read, Moment(news.time)
