"""P7: a person's decision beside a flow's last event, in every order, on two replicas, one of which may die."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import pytest

from handrail.coordinator.decide import decide, operator_requests
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.timers import timers
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow
from handrail.mesh.fold import status
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import DECIDE, TRACK
from handrail.mesh.template import Template, load_yaml
from handrail.mesh.wire.envelope import Entry
from handrail.v1.decision_pb2 import FlowStatus
from tests.support import orders
from tests.support.flows import stored
from tests.support.interleaving import Schedule, Stage, explore
from tests.support.simulation import BEGINNING, FLOW_ID, Simulation
from tests.support.stepped import Durables, SteppedBus, SteppedReplica

TEMPLATE = Template.compile(
    load_yaml("""
name: order
version: 1
starts_with: [shop.v1.OrderPlaced]
started_by: [storefront]
completes_with: [shop.v1.PaymentTaken]
deadline: 86400s
steps:
  - {name: reserve, agent: warehouse, after: [shop.v1.OrderPlaced], emits: [shop.v1.StockReserved], effect: UNDOABLE,
     timeout: 30s, on_failure: ESCALATE, undo: {timeout: 20s, emits: [shop.v1.StockReleased]}}
  - {name: pay, agent: cashier, after: [shop.v1.StockReserved], emits: [shop.v1.PaymentTaken], effect: UNDOABLE,
     timeout: 60s, on_failure: COMPENSATE, undo: {timeout: 20s, emits: [shop.v1.PaymentReturned]}}
"""),
    orders.contracts(),
)

Ask = Callable[[SteppedReplica], Awaitable[Flow]]


async def cancel(replica: SteppedReplica) -> Flow:
    """Cancel the order."""
    return await replica.operator_actions.record("order", FLOW_ID, operator_requests.cancelling, caller=Caller("ola"))


async def compensate(replica: SteppedReplica) -> Flow:
    """Undo the order."""
    return await replica.operator_actions.record("order", FLOW_ID, operator_requests.compensation, caller=Caller("ola"))


class Order:
    """One order, two replicas, and what happens beside each other."""

    def __init__(
        self, schedule: Schedule, catalog: Catalog, said: Sequence[Entry], *, known: int, replicated: bool
    ) -> None:
        self.bus = SteppedBus(BEGINNING, replicated=replicated)
        self.catalog = catalog
        self.durables = Durables(self.bus)
        self.stage = Stage(schedule)
        self._known = known
        self._said = said

    async def begin(self) -> None:
        """`known` of the order's messages are there; the rest is on its way."""
        for entry in self._said[: self._known]:
            await self.bus.publish(entry.address.subject, entry.body)
        self.bus.stage = self.stage

    def replica(self) -> SteppedReplica:
        """One more replica."""
        return SteppedReplica(self.bus, self.catalog)

    async def agents(self) -> None:
        """What is on its way arrives."""
        for entry in self._said[self._known :]:
            await self.bus.publish(entry.address.subject, entry.body)

    async def track(self, replica: SteppedReplica) -> None:
        """A replica is handed what `track` has."""
        await replica.track(self.durables.take(TRACK))

    async def decide(self, replica: SteppedReplica) -> None:
        """A replica is handed what `decide` has."""
        for delivery in self.durables.take(DECIDE):
            await replica.decide(delivery)

    async def rest(self) -> Flow:
        """Let everything come to rest, and agents undo what they are asked to; no timer is due."""
        self.bus.stage = None
        replica = self.replica()
        for _ in range(12):
            self.durables.hand_out_again()
            await self.track(replica)
            await self.decide(replica)
            flow = await replica.store.load("order", FLOW_ID)
            undoing = [effect for effect in flow.effects.values() if effect.deadline is not None]
            if self.durables.idle and not undoing:
                return flow
            simulation = Simulation(TEMPLATE)
            simulation.flow = flow
            for effect in undoing:
                emits = "StockReleased" if effect.step.name == "reserve" else "PaymentReturned"
                entry = simulation.undone(effect, orders.make(emits))
                await self.bus.publish(entry.address.subject, entry.body)
        raise AssertionError("it comes to no rest: messages are handed out for ever")


async def stored_template() -> Catalog:
    """A catalog with the template."""
    catalog = Catalog(SteppedBus(BEGINNING))
    await catalog.put(stored(TEMPLATE))
    return catalog


def said() -> list[Entry]:
    """What the agents of an order say until it is complete."""
    entries: list[Entry] = []
    simulation = Simulation(TEMPLATE)
    simulation.coordinator = False
    simulation.on_stored = lambda recorded: entries.append(Entry(recorded.address, recorded.event))
    placed = orders.make("OrderPlaced", buyer="kim", units=2)
    simulation.store(simulation.start(placed, agent="storefront"))
    orders.emit(simulation, "reserve", "StockReserved", units=2)
    orders.emit(simulation, "pay", "PaymentTaken", amount=95)
    return entries


async def asked(replica: SteppedReplica, ask: Ask) -> None:
    """A person asks; a refusal is an answer, too."""
    try:
        await ask(replica)
    except HandrailError:
        return


@pytest.mark.parametrize(
    "ask, known, tracks, replicated",
    [
        (cancel, 1, "A", False),
        (cancel, 2, "B", False),
        (compensate, 1, "B", False),
        (compensate, 2, "A", False),
        (cancel, 2, "B", True),
    ],
)
async def test_p7_no_order_of_a_decision_and_the_last_event_leaves_a_flow_forgotten(
    ask: Ask, known: int, tracks: str, replicated: bool
) -> None:
    catalog, entries = await stored_template(), said()
    ends: set[str] = set()

    async def scenario(schedule: Schedule) -> None:
        order = Order(schedule, catalog, entries, known=known, replicated=replicated)
        await order.begin()
        replicas = {name: order.replica() for name in "AB"}
        order.stage.add("agents", order.agents)
        order.stage.add("person", lambda: asked(replicas["A"], ask), process="A")
        order.stage.add("track", lambda: order.track(replicas[tracks]), process=tracks)
        order.stage.add("decide", lambda: order.decide(replicas["B"]), process="B")
        await order.stage.play(deaths=0 if replicated else 1)
        flow = await order.rest()
        ends.add(FlowStatus.Name(status(flow)))
        assert decide(flow, order.bus.now) is None, "something is left to decide, and nobody looks"
        armed = {subject.rpartition(".")[2] for subject in order.bus.timers}
        assert set(timers(flow)) <= armed, "a timer is missing"
        assert status(flow) in (
            FlowStatus.FLOW_STATUS_COMPLETED,
            FlowStatus.FLOW_STATUS_CANCELLED,
            FlowStatus.FLOW_STATUS_COMPENSATED,
        ), FlowStatus.Name(status(flow))

    schedules = await explore(scenario, preemptions=1)
    assert schedules > 100
    assert len(ends) > 1, ends
