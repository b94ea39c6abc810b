"""P4: a flow in hand is what the stream says, after any order of appends, deliveries, redeliveries and lost answers."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

import pytest

from handrail.coordinator.decide import decide, operator_requests, votes
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.grants import of_roles
from handrail.coordinator.reconcile.flow_in_hand import Delivered, FlowInHand
from handrail.mesh.errors import AlreadyStored, BrokerUnavailable, HandrailError
from handrail.mesh.flow import EffectState, Flow, ProposalState, RunState
from handrail.mesh.fold import fold
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import DECIDE, TRACK
from handrail.mesh.template import Template, load_yaml
from handrail.mesh.wire.envelope import Entry, Recorded, decode
from handrail.mesh.wire.subjects import Kind, flow_filter
from handrail.v1.decision_pb2 import FlowHalted, StepTimedOut
from tests.support import orders
from tests.support.fingerprint import fingerprint
from tests.support.flows import stored
from tests.support.simulation import BEGINNING, FLOW_ID, Simulation
from tests.support.stepped import Durables, SteppedBus, SteppedReplica

TEMPLATE = Template.compile(
    load_yaml("""
name: order
version: 1
starts_with: [shop.v1.OrderPlaced]
started_by: [storefront]
completes_with: [shop.v1.ParcelSent]
deadline: 86400s
steps:
  - {name: reserve, agent: warehouse, after: [shop.v1.OrderPlaced], emits: [shop.v1.StockReserved], effect: UNDOABLE,
     timeout: 3s, on_failure: ESCALATE, undo: {timeout: 2s, emits: [shop.v1.StockReleased]}}
  - {name: discount, agent: sales, after: [shop.v1.StockReserved], emits: [shop.v1.DiscountGranted],
     effect: NONE, timeout: 3s, retry: {max_attempts: 2, initial_backoff: 0.1s}, on_failure: COMPENSATE}
  - {name: pay, agent: cashier, after: [shop.v1.DiscountGranted], emits: [shop.v1.PaymentTaken], effect: UNDOABLE,
     timeout: 3s, on_failure: COMPENSATE, undo: {timeout: 2s, emits: [shop.v1.PaymentReturned]}}
  - {name: send, agent: courier, after: [shop.v1.PaymentTaken], emits: [shop.v1.ParcelSent], effect: NONE,
     timeout: 3s, on_failure: COMPENSATE}
gates:
  - {name: large, on: shop.v1.DiscountGranted, approvers: {roles: [lead]}, expires_after: 4s, on_expiry: REJECT,
     on_reject: COMPENSATE}
"""),
    orders.contracts(),
)

ANSWERS: Mapping[str, tuple[str, str]] = {
    "reserve": ("StockReserved", "StockReleased"),
    "discount": ("DiscountGranted", ""),
    "pay": ("PaymentTaken", "PaymentReturned"),
    "send": ("ParcelSent", ""),
}
"""Step -> what it says, and what it says when it is undone."""

LEAD, OLA = Caller("lea", of_roles(["lead"])), Caller("ola", of_roles(["operator"]))
STEPS = 70
_TIMED_OUT = StepTimedOut.DESCRIPTOR.full_name
Move = Callable[[], Awaitable[object]]


class Forgetful(SteppedBus):
    """A broker that now and then stores a decision, and whose answer is lost."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(BEGINNING)
        self.chance = chance
        self.loses = 0.1

    async def publish(self, subject: str, body: bytes, **options: object) -> int:
        """Stores it a moment later than the last."""
        self.now += timedelta(seconds=self.chance.choice((0, 0, 0.001, 1.5)))
        sequence = await super().publish(subject, body, **options)  # type: ignore[arg-type]
        if options.get("expected_filter") and self.chance.random() < self.loses:
            raise BrokerUnavailable("the answer got lost")
        return sequence


class Run:
    """One order, two replicas, and whatever happens next."""

    def __init__(self, seed: int, catalog: Catalog) -> None:
        self.chance = random.Random(seed)
        self.bus = Forgetful(self.chance)
        self.durables = Durables(self.bus)
        self.replicas = [SteppedReplica(self.bus, catalog) for _ in range(2)]
        self.said = Simulation(TEMPLATE)
        self._catalog = catalog

    def flow(self, up_to: int | None = None) -> Flow:
        """The flow as the stream has it."""
        stored = [each for each in self.bus.messages[FLOW] if up_to is None or each.sequence <= up_to]
        template = self._catalog.get("order", 1) or TEMPLATE
        return fold(template, [decode(m.subject, m.body, sequence=m.sequence, time=m.time) for m in stored])

    async def begin(self) -> None:
        """The first event."""
        placed = orders.make("OrderPlaced", buyer="kim", units=2)
        await self._say(self.said.start(placed, agent="storefront"))

    async def happen(self) -> None:
        """Does one thing."""
        replica = self.chance.choice(self.replicas)
        moves: list[Move] = [
            *[self._answer] * 3,
            *[lambda: self._hand_out(replica, DECIDE)] * 3,
            *[lambda: self._hand_out(replica, TRACK)] * 2,
            lambda: self._ask(replica),
            replica.lag.flush,
            self._redeliver,
            self._wait,
        ]
        await self.chance.choice(moves)()

    async def rest(self) -> Flow:
        """Everything is delivered, and nobody answers any more."""
        self.bus.loses = 0.0
        for _ in range(12):
            self.durables.hand_out_again()
            for durable in (TRACK, DECIDE):
                await self._hand_out(self.replicas[0], durable)
            await self.replicas[0].lag.flush()
            if self.durables.idle:
                break
        return self.flow()

    def hands(self) -> list[FlowInHand]:
        """The flow as each replica has it in hand."""
        found = (replica.reconciler.flows.get(("order", FLOW_ID)) for replica in self.replicas)
        return [hand for hand in found if hand is not None]

    async def _say(self, entry: Entry) -> None:
        """Publishes a message; now and then one that says after which message of the flow it comes."""
        last = self.flow().last_sequence if self.bus.messages[FLOW] else 0
        expected = {"expected_sequence": last, "expected_filter": flow_filter("order", FLOW_ID)}
        try:
            await self.bus.publish(
                entry.address.subject, entry.body, **(expected if last and self.chance.random() < 0.5 else {})
            )
        except (AlreadyStored, BrokerUnavailable):
            return

    async def _answer(self) -> None:
        flow = self.said.flow = self.flow()
        owed = [run for run in flow.runs.values() if run.state is RunState.OWED]
        undoing = [effect for effect in flow.effects.values() if effect.state is EffectState.UNDOING]
        if owed and (not undoing or self.chance.random() < 0.5):
            run = self.chance.choice(owed)
            says, _ = ANSWERS[run.step.name]
            fails = self.chance.random() < 0.3
            entry = self.said.failed(run, "no") if fails else self.said.outcome(run, orders.make(says))
            await self._say(entry)
        elif undoing:
            effect = self.chance.choice(undoing)
            await self._say(self.said.undone(effect, orders.make(ANSWERS[effect.step.name][1])))

    async def _hand_out(self, replica: SteppedReplica, durable: str) -> None:
        deliveries = self.durables.take(durable)
        if durable == TRACK:
            await replica.track(deliveries)
            return
        for delivery in deliveries:
            await replica.attend(delivery)

    async def _ask(self, replica: SteppedReplica) -> None:
        flow = self.flow()
        waiting = [each for each in flow.proposals.values() if each.state is ProposalState.PENDING]
        try:
            if waiting and self.chance.random() < 0.8:
                asked = waiting[0]
                approve = self.chance.random() < 0.7

                def vote(flow: Flow, caller: Caller) -> Entry | int:
                    about = asked.recorded.event_id
                    return votes.vote(flow, caller, approval_id=about, digest=asked.digest, approve=approve)

                after = await replica.operator_actions.record("order", FLOW_ID, vote, caller=LEAD)
            elif self.chance.random() < 0.2:
                cancel = operator_requests.cancelling
                after = await replica.operator_actions.record("order", FLOW_ID, cancel, caller=OLA)
            else:
                return
        except HandrailError:
            return
        assert after == self.flow(up_to=after.last_sequence), "an answer shows what the stream has, with its times"

    async def _redeliver(self) -> None:
        self.durables.hand_out_again()

    async def _wait(self) -> None:
        self.bus.now += timedelta(seconds=self.chance.choice((0.05, 1, 2, 5)))


def timeless(flow: Flow) -> str:
    """A flow without times."""
    return re.sub(r"\d{4}-\d\d-\d\dT[0-9:.+]*", "", fingerprint(flow))


@pytest.mark.parametrize("seeds", [range(start, start + 30) for start in range(0, 120, 30)], ids=lambda r: str(r.start))
async def test_p4_a_flow_in_hand_is_the_fold_of_the_stream(seeds: range) -> None:
    catalog = Catalog(SteppedBus(BEGINNING))
    await catalog.put(stored(TEMPLATE))
    unread = 0
    for seed in seeds:
        run = Run(seed, catalog)
        await run.begin()
        for _ in range(STEPS):
            await run.happen()
            for hand in run.hands():
                unread += not hand.is_read
                assert hand.last_read == run.flow(up_to=hand.last_read.last_sequence), seed
                assert timeless(hand.flow) == timeless(run.flow(up_to=hand.flow.last_sequence)), seed
        flow = await run.rest()
        assert decide(flow, flow.last_time or BEGINNING) is None, f"seed {seed}: something is left to decide"
    assert unread > 100, "own appends were folded without a read"


async def failed_payment(bus: SteppedBus) -> tuple[SteppedReplica, Durables, Simulation]:
    """A replica, and an order whose payment failed for good after the stock was reserved and the discount given."""
    catalog = Catalog(SteppedBus(BEGINNING))
    await catalog.put(stored(TEMPLATE))
    replica = SteppedReplica(bus, catalog)
    said = Simulation(TEMPLATE)
    entries: list[Entry] = []
    said.coordinator = False
    said.on_stored = lambda recorded: entries.append(Entry(recorded.address, recorded.event))
    said.say(said.start(orders.make("OrderPlaced", buyer="kim", units=2), agent="storefront"))
    orders.emit(said, "reserve", "StockReserved", units=2)
    said.coordinator = True
    orders.emit(said, "discount", "DiscountGranted", percent=5)
    said.say(said.vote(next(iter(said.flow.proposals.values())), "lea", roles=["lead"]))
    (pay,) = [run for run in said.flow.runs.values() if run.step.name == "pay"]
    said.coordinator = False
    said.say(said.failed(pay, "no account", retryable=False))
    for entry in entries:
        await bus.publish(entry.address.subject, entry.body)
    return replica, Durables(bus), said


def undone(bus: SteppedBus) -> list[str]:
    """The steps that were asked to undo something, in stream order."""
    found = [decode(m.subject, m.body, sequence=m.sequence, time=m.time) for m in bus.messages[FLOW]]
    return [recorded.event.step for recorded in found if recorded.kind is Kind.UNDO]


async def test_p4_an_event_that_slips_in_before_an_own_append_is_seen_before_anything_is_planned() -> None:
    bus = SteppedBus(BEGINNING, replicated=True)
    replica, durables, said = await failed_payment(bus)
    # The payment was taken all the same: another worker says so just before the flow is halted, which settles the
    # reason for it. Another replica is handed the message.
    (pay,) = [run for run in said.flow.runs.values() if run.step.name == "pay"]
    bus.slips_in = [said.outcome(pay, orders.make("PaymentTaken", amount=95))]
    for delivery in durables.take(DECIDE):
        await replica.attend(delivery)
    assert bus.messages[FLOW][-1].subject.endswith(FlowHalted.DESCRIPTOR.full_name), "nothing is planned or undone"
    assert not list(replica.troubles)


@pytest.mark.parametrize("replicated", [False, True], ids=["one copy", "replicated"])
async def test_p4_an_event_before_the_delivered_message_is_never_left_out(replicated: bool) -> None:
    bus = SteppedBus(BEGINNING, replicated=replicated)
    replica, durables, said = await failed_payment(bus)
    for delivery in durables.take(DECIDE):
        await replica.attend(delivery)
    assert undone(bus) == ["reserve"]
    await report_undone(bus, said, right_after=bus.messages[FLOW][-1].sequence, slips_in=replicated)
    reads = bus.reads
    for delivery in durables.take(DECIDE):
        await replica.attend(delivery)
    assert (bus.reads > reads) is replicated, "with one copy, the broker has compared the sequence when it stored it"
    flow = await replica.store.load("order", FLOW_ID)
    hand = replica.reconciler.flows.get(("order", FLOW_ID))
    assert hand is not None
    assert timeless(hand.flow) == timeless(flow)


async def test_p4_a_message_that_follows_another_than_the_last_in_hand_is_read() -> None:
    bus = SteppedBus(BEGINNING)
    replica, durables, said = await failed_payment(bus)
    for delivery in durables.take(DECIDE):
        await replica.attend(delivery)
    (late,) = [run for run in said.flow.runs.values() if run.step.name == "pay"]
    entry = said.progress(late, 1)
    await bus.publish(entry.address.subject, entry.body)
    await report_undone(bus, said, right_after=bus.messages[FLOW][-1].sequence)
    for delivery in durables.take(DECIDE):
        await replica.attend(delivery)
    hand = replica.reconciler.flows.get(("order", FLOW_ID))
    assert hand is not None
    assert hand.flow.message_count == len(bus.messages[FLOW])


async def report_undone(bus: SteppedBus, said: Simulation, *, right_after: int, slips_in: bool = False) -> None:
    """The warehouse reports that the stock was released, as the flow's next message after this one."""
    history = [decode(m.subject, m.body, sequence=m.sequence, time=m.time) for m in bus.messages[FLOW]]
    said.flow = fold(TEMPLATE, history)
    (effect,) = [each for each in said.flow.effects.values() if each.state is EffectState.UNDOING]
    if slips_in:
        (pay,) = [run for run in said.flow.runs.values() if run.step.name == "pay"]
        bus.slips_in = [said.progress(pay, 1)]
    entry = said.undone(effect, orders.make("StockReleased"))
    filter_ = flow_filter("order", FLOW_ID)
    await bus.publish(entry.address.subject, entry.body, expected_sequence=right_after, expected_filter=filter_)


async def test_p4_no_time_out_rests_on_a_guess_of_when_an_own_append_was_stored() -> None:
    bus = SteppedBus(BEGINNING)
    replica, durables, _ = await failed_payment(bus)
    begun = bus.now
    store = bus.publish

    async def slowly(subject: str, body: bytes, **options: object) -> int:
        bus.now += timedelta(seconds=1)
        return await store(subject, body, **options)  # type: ignore[arg-type]

    bus.publish = slowly  # type: ignore[method-assign]
    for delivery in durables.take(DECIDE):
        await replica.attend(delivery)
    assert undone(bus) == ["reserve"]
    # The undo may take two seconds from when its command was stored, which is later than when it was decided.
    bus.now = begun + timedelta(seconds=2.5)
    flow = await replica.reconciler.attend(("order", FLOW_ID), at_least=0, now=bus.now)
    assert flow.effects
    assert not [m for m in bus.messages[FLOW] if m.subject.endswith(_TIMED_OUT)]


async def test_p2_what_is_left_after_a_failure_is_decided_when_the_message_comes_again() -> None:
    bus = SteppedBus(BEGINNING)
    replica, durables, _ = await failed_payment(bus)
    store, publishes = bus.publish, 0

    async def failing(subject: str, body: bytes, **options: object) -> int:
        nonlocal publishes
        publishes += 1
        if publishes == 2:
            raise BrokerUnavailable("no answer")
        return await store(subject, body, **options)  # type: ignore[arg-type]

    bus.publish = failing  # type: ignore[method-assign]
    await replica.attend(durables.take(DECIDE)[-1])
    assert undone(bus) == [], "the flow is halted, and the plan could not be stored"
    durables.hand_out_again()
    await replica.attend(durables.take(DECIDE)[-1])
    assert undone(bus) == ["reserve"]


async def test_p6_a_second_persons_confirmation_is_read_before_anything_follows_from_it() -> None:
    bus = SteppedBus(BEGINNING)
    replica, _, _ = await failed_payment(bus)
    flow = await replica.store.load("order", FLOW_ID)
    hand = FlowInHand(flow, replicated=False)
    entry = operator_requests.cancelling(flow, OLA)
    assert hand.take_append(entry, flow.last_sequence + 1, now=bus.now)
    # It counts only if it was stored before the act expired, which its own time tells.
    hand = FlowInHand(flow, replicated=False)
    entry.event.confirmation.by = "ola"
    assert not hand.take_append(entry, flow.last_sequence + 1, now=bus.now)
    assert hand.flow is flow


async def test_p4_a_flow_that_has_not_begun_takes_no_delivered_message_unread() -> None:
    said = Simulation(TEMPLATE)
    entry = said.start(orders.make("OrderPlaced", buyer="kim", units=2), agent="storefront")
    begun = Recorded(entry.address, entry.event, 2, BEGINNING)
    early = Recorded(entry.address._replace(agent="courier"), entry.event, 1, BEGINNING)
    flow = fold(TEMPLATE, [early])
    assert flow.first is None
    hand = FlowInHand(flow, replicated=False)
    hand.take_delivered(Delivered(begun, right_after=1))  # it may pin the flow to another version
    assert hand.flow is flow
    assert not hand.covers(2)
