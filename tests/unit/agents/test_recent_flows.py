"""Which flows a worker remembers, and what it concludes from a remembered one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handrail.agents import plan
from handrail.agents.bindings import Bindings
from handrail.agents.broker_retry import BrokerRetry
from handrail.agents.halted_flows import HaltedFlows
from handrail.agents.planner import Planner
from handrail.agents.recent_flows import RecentFlows
from handrail.mesh.bus import Bus
from handrail.mesh.errors import BrokerUnavailable
from handrail.mesh.flow import Flow, Verdict
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import Kind
from handrail.testing import World
from handrail.testing.hosting import WorldClock
from payments.v1.payments_pb2 import ChargebackReceived, RefundPaid
from tests.support.agents import received, template
from tests.support.random_templates import Spec, compiled, specs
from tests.support.wandering import Wanderer
from tests.unit.agents.test_fan_out_in_flows import FAN_OUT, Fan

JOINER = "notification"


class SlowStore(FlowStore):
    """Reads whole flows and news only when it is let. Counts the reads, also those in progress."""

    def __init__(self, bus: Bus, catalog: Catalog) -> None:
        super().__init__(bus, catalog)
        self.let = asyncio.Event()
        self.let.set()
        self.is_reading, self.are_two = asyncio.Event(), asyncio.Event()
        self.fails = False
        self.whole = self.news = self.reading = self.most = 0

    async def load(self, flow_type: str, flow_id: str, *, at_least: int = 0, up_to: int | None = None) -> Flow:
        self.whole += 1
        await self._wait()
        return await super().load(flow_type, flow_id, at_least=at_least, up_to=up_to)

    async def catch_up(self, flow: Flow, *, at_least: int) -> Flow:
        self.news += 1
        await self._wait()
        return await super().catch_up(flow, at_least=at_least)

    async def _wait(self) -> None:
        self.reading += 1
        self.most = max(self.most, self.reading)
        self.is_reading.set()
        if self.reading == 2:
            self.are_two.set()
        await self.let.wait()
        self.reading -= 1
        if self.fails:
            raise BrokerUnavailable("no answer")


@dataclass
class Joined:
    """Flows with all inputs of a join, none of which the joining agent has received."""

    world: World
    store: SlowStore
    recent: RecentFlows = field(init=False)

    def __post_init__(self) -> None:
        self.recent = RecentFlows(self.store)

    async def inputs(self, parts: int = 3) -> list[Recorded]:
        """Begins another flow, and returns the inputs of its join."""
        event = received()
        event.amount.units = parts
        flow = await self.world.start("refund", event, by="detection")
        wanted = {ChargebackReceived.DESCRIPTOR.full_name, RefundPaid.DESCRIPTOR.full_name}
        return [recorded for recorded in flow.history if recorded.type in wanted]

    async def load(self, recorded: Recorded, *, suffices: bool = False) -> Flow:
        """Reads the flow of an input."""
        address = recorded.address
        return await self.recent.load(
            address.flow_type, address.flow_id, at_least=recorded.sequence, suffices=lambda _: suffices
        )

    def planner(self) -> Planner:
        """The joining agent's."""
        clock = WorldClock(self.world.bus)
        handlers = self.world._agents[JOINER].agent.handlers
        return Planner(
            Bindings(JOINER, handlers),
            store=self.store,
            clock=clock,
            patience=BrokerRetry(clock),
            hints=HaltedFlows(),
        )


@asynccontextmanager
async def joined() -> AsyncIterator[Joined]:
    """A World whose joining agent is stopped."""
    async with World(templates=[template(FAN_OUT)], agents=Fan().agents) as world:
        world.stop_agent(JOINER)
        yield Joined(world, SlowStore(world.bus, world.coordinator.catalog))


async def test_one_delivery_at_a_time_reads_a_flow_and_the_others_share_what_it_read() -> None:
    async with joined() as case:
        inputs, planner = await case.inputs(parts=40), case.planner()
        case.store.let.clear()
        planning = [asyncio.ensure_future(planner.plan(each, delivered=1)) for each in inputs]
        await case.store.is_reading.wait()
        case.store.let.set()
        plans = await asyncio.gather(*planning)
        assert case.store.most == 1
        assert case.store.whole == 1
        assert case.store.news <= 1, "the last input is judged by the newest messages"
        assert [len(each.tasks) for each in plans] == [0] * 40 + [1]


async def test_different_flows_are_read_beside_each_other() -> None:
    async with joined() as case:
        one, other = await case.inputs(), await case.inputs()
        case.store.let.clear()
        reading = [asyncio.ensure_future(case.load(inputs[0])) for inputs in (one, other)]
        await case.store.are_two.wait()
        case.store.let.set()
        flows = await asyncio.gather(*reading)
        assert [flow.flow_id for flow in flows] == [one[0].address.flow_id, other[0].address.flow_id]


async def test_only_news_are_read_of_a_remembered_flow_and_nothing_if_it_suffices() -> None:
    async with joined() as case:
        inputs = await case.inputs()
        first = await case.load(inputs[0])
        assert await case.load(inputs[-1], suffices=True) is first
        assert await case.load(inputs[-1]) == first
        assert (case.store.whole, case.store.news) == (1, 1)


async def test_a_remembered_flow_does_not_suffice_for_a_message_that_is_newer() -> None:
    async with joined() as case:
        case.world.stop_agent("ledger")
        [first] = await case.inputs()
        before = await case.load(first)
        await case.world.start_agent("ledger")
        newest = case.world.flow("refund", first.address.flow_id).history[-1]
        after = await case.load(newest, suffices=True)
        assert before.last_sequence < newest.sequence == after.last_sequence


async def test_the_flow_that_was_not_read_for_longest_is_forgotten() -> None:
    async with joined() as case:
        flows = [await case.inputs() for _ in range(3)]
        case.recent = RecentFlows(case.store, limit=40_000)
        for at in (0, 1, 0, 2, 0, 1):
            await case.load(flows[at][0])
        assert case.store.whole == 4, "two fit: the third pushes out the second, which is read whole again"


async def test_a_flow_of_any_size_is_remembered_until_the_next() -> None:
    async with joined() as case:
        one, other = await case.inputs(), await case.inputs()
        case.recent = RecentFlows(case.store, limit=1)
        for inputs in (one, one, other, one):
            await case.load(inputs[0])
        assert (case.store.whole, case.store.news) == (3, 1)


async def test_p4_flows_are_forgotten_even_while_they_are_read() -> None:
    async with joined() as case:
        inputs = await case.inputs()
        case.store.let.clear()
        reading = [asyncio.ensure_future(case.load(each)) for each in inputs]
        await case.store.is_reading.wait()
        case.recent.forget()
        case.store.let.set()
        await asyncio.gather(*reading)
        assert case.store.whole == 2, "those that waited for the forgotten read do not use it"


async def test_a_read_that_fails_leaves_nothing_behind() -> None:
    async with joined() as case:
        inputs = await case.inputs()
        await case.load(inputs[0])
        case.store.fails = True
        with pytest.raises(BrokerUnavailable):
            await case.load(inputs[0])
        case.store.fails = False
        await case.load(inputs[0])
        assert (case.store.whole, case.store.news) == (2, 1)


async def test_p4_a_join_begins_by_the_newest_messages_and_not_by_what_was_read_before() -> None:
    async with joined() as case:
        inputs, planner = await case.inputs(), case.planner()
        await planner.plan(inputs[0], delivered=1)
        flow = case.world.flow("refund", inputs[0].address.flow_id)
        await case.world.cancel(flow, reason="never mind")
        [task] = (await planner.plan(inputs[-1], delivered=1)).tasks
        assert task.verdict is Verdict.ANSWER_NOT_STARTED


async def test_p7_a_message_that_a_remembered_flow_has_under_another_sequence_is_not_judged_by_it() -> None:
    async with joined() as case:
        inputs, planner = await case.inputs(), case.planner()
        await planner.plan(inputs[0], delivered=1)
        reads = case.store.news
        await planner.plan(replace(inputs[1], sequence=inputs[1].sequence - 1), delivered=1)
        assert case.store.news == reads + 1


@settings(max_examples=150)
@given(specs(), st.data())
def test_p4_what_a_fact_triggers_is_known_once_it_is_folded_and_never_changes(spec: Spec, data: st.DataObject) -> None:
    wanderer = Wanderer(compiled(spec))
    wanderer.begin(data.draw(st.integers(0, 3), label="n"))
    for _ in range(data.draw(st.integers(1, 30), label="length")):
        wanderer.next_act(data).do()
    agents = {step.agent for step in wanderer.flow.template.steps.values()}
    for at, recorded in enumerate(wanderer.simulation.history):
        if recorded.kind not in (Kind.EVENT, Kind.RELEASED):
            continue
        begun = {agent: _triggered(wanderer.states[at + 1], recorded, agent) for agent in agents}
        for later in wanderer.states[at + 1 :]:
            for agent in agents:
                assert _triggered(later, recorded, agent) == begun[agent]
                if plan.triggers_nothing(later, recorded, agent=agent):
                    assert plan.triggered(later, recorded, agent=agent, delivered=1) == plan.Plan()


def _triggered(flow: Flow, recorded: Recorded, agent: str) -> set[tuple[str, str]]:
    if recorded.sequence in flow.void:
        return set()
    return {run.key for run in flow.runs_triggered_by(recorded.event_id) if run.step.agent == agent}
