"""The lag costs a flow neither a read nor a timer while it is being decided on, or once it is over."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from handrail.coordinator.decide import operator_requests
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.reconcile import backlog
from handrail.coordinator.reconcile.flow_batch import FlowBatch
from handrail.coordinator.reconcile.flow_in_hand import FlowInHand
from handrail.coordinator.reconcile.hurry import is_unhurried
from handrail.mesh.bus import RawMessage
from handrail.mesh.fold import fold
from handrail.mesh.streams import FLOW, TIMER
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import DECIDE, TRACK
from handrail.mesh.template import Template
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry, Recorded
from handrail.testing.memory import MemoryDelivery
from handrail.v1.decision_pb2 import FlowHalted, HaltMode
from handrail.v1.template_pb2 import EFFECT_NONE, EFFECT_UNDOABLE
from tests.support import flows
from tests.support.simulation import BEGINNING
from tests.support.stepped import SteppedBus, SteppedReplica


async def test_the_echo_of_a_closed_flows_last_decision_costs_neither_a_read_nor_a_timer() -> None:
    bus = SteppedBus(BEGINNING)
    replica = SteppedReplica(bus, Catalog(bus))
    await replica.store.catalog.put(flows.stored(flows.template()))
    start = flows.start()
    await bus.publish(start.address.subject, start.body)
    settled: list[timedelta | None] = []

    def handed_out(message: RawMessage) -> MemoryDelivery:
        return MemoryDelivery(message, 1, settled.append)

    replica.lag.take(TRACK, handed_out(bus.messages[FLOW][0]))
    await replica.operator_actions.record("refund", flows.FLOW_ID, operator_requests.cancelling, caller=Caller("olga"))
    await replica.lag.flush(everything=False)
    assert settled == [None], "the flow is over"
    reads = bus.reads
    replica.lag.take(DECIDE, handed_out(bus.messages[FLOW][1]))
    await replica.lag.flush(everything=False)
    assert settled == [None, None]
    assert bus.reads == reads
    assert not bus.messages[TIMER]


def test_a_halted_flow_that_needs_no_timer_waits_for_its_next_decision() -> None:
    cancelled = flows.decision(FlowHalted(mode=HaltMode.HALT_MODE_CANCEL, by="olga"), based_on=1)
    history = [
        Recorded(entry.address, entry.event, sequence, BEGINNING)
        for sequence, entry in enumerate((flows.start(), cancelled), start=1)
    ]
    hand = FlowInHand(fold(flows.template(), history), replicated=False)
    assert hand.flow.halt is not None
    batch = FlowBatch(TRACK, since=0.0, epoch=0)
    batch.add(MemoryDelivery(RawMessage("", b"", 2, BEGINNING), 1, lambda _: None), durable=TRACK, epoch=0)
    assert not is_unhurried(hand, batch, [timedelta(seconds=1)]), "something may be left to decide"
    hand.decided_up_to = 2
    assert is_unhurried(hand, batch, [timedelta(seconds=1)])


def undoable() -> Template:
    """A first step that can be undone; all its timeouts are far away."""
    proto = flows.template(timeout=timedelta(seconds=600)).proto
    for step in proto.steps:
        step.timeout.FromTimedelta(timedelta(seconds=600))
    proto.steps[0].effect, proto.steps[1].effect = EFFECT_UNDOABLE, EFFECT_NONE
    proto.steps[0].undo.timeout.FromTimedelta(timedelta(seconds=600))
    return Template.compile(proto, flows.template().contracts)


async def test_an_outcome_that_comes_after_its_flow_was_halted_is_undone_without_the_long_lag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bus, now = SteppedBus(BEGINNING), 0.0
    replica = SteppedReplica(bus, Catalog(bus))
    monkeypatch.setattr(replica.lag, "_clock", lambda: now)
    await replica.store.catalog.put(flows.stored(undoable()))

    async def track(entry: Entry) -> None:
        await bus.publish(entry.address.subject, entry.body)
        replica.lag.take(TRACK, MemoryDelivery(bus.messages[FLOW][-1], 1, lambda _: None))

    await track(flows.start())
    await replica.operator_actions.record(
        "refund", flows.FLOW_ID, operator_requests.compensation, caller=Caller("olga")
    )
    await replica.lag.flush()
    await track(flows.enriched())
    now = 0.3
    await replica.lag.flush(everything=False)
    await replica.lag._late.finish()
    assert bus.matching(FLOW, "flow.*.*.undo.>")


async def test_p7_no_more_is_taken_than_can_be_settled_and_events_keep_no_decision_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backlog, "_WAITING_AT_MOST", 4)
    bus, now = SteppedBus(BEGINNING), 0.0
    replica = SteppedReplica(bus, Catalog(bus))
    slots = asyncio.Semaphore(0)
    monkeypatch.setattr(replica.lag, "_slots", slots)
    monkeypatch.setattr(replica.lag, "_clock", lambda: now)
    await replica.store.catalog.put(flows.stored(flows.template()))
    room: list[str] = []
    settled: list[timedelta | None] = []

    async def take(durable: str, *numbers: int) -> None:
        class Counted(MemoryDelivery):
            def make_room(self) -> None:
                room.append(durable)

        for number in numbers:
            start = flows.start(ids.flow_id_from_key("refund", str(number)))
            await bus.publish(start.address.subject, start.body)
            replica.lag.take(durable, Counted(bus.messages[FLOW][-1], 1, settled.append))

    await take(TRACK, *range(4))
    now = 0.3
    await replica.lag.flush(everything=False)
    await take(TRACK, *range(4, 8))
    assert room == 4 * [TRACK], "their timers are being set: nothing is settled yet"
    await take(DECIDE, *range(8, 13))
    assert room == 4 * [TRACK] + 4 * [DECIDE]
    for _ in range(13):
        slots.release()
    await replica.lag.flush()
    assert settled == 13 * [None]
    await take(TRACK, 13)
    assert room[8:] == [TRACK]
