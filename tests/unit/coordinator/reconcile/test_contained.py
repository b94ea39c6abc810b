"""No delivery, and no bug in one flow's fold, ends a loop of the coordinator or keeps another flow from its due."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any
from unittest.mock import AsyncMock

import pytest

from handrail.coordinator.reconcile import hurry, lag, supervise
from handrail.coordinator.reconcile.settle import Held
from handrail.coordinator.reconcile.supervise import keep_running
from handrail.coordinator.reconcile.troubles import Troubles
from handrail.mesh import telemetry
from handrail.mesh.bus import RawMessage
from handrail.mesh.errors import BrokerUnavailable, HandrailError
from handrail.mesh.fold import fold
from handrail.mesh.streams import FLOW, TIMER, flow_store
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.template import Template
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry, Recorded
from handrail.testing.memory import MemoryDelivery
from handrail.v1.error_reason_pb2 import ErrorReason
from tests.support import flows
from tests.support.simulation import BEGINNING
from tests.support.stepped import SteppedBus, SteppedReplica

Settled = dict[int, list[timedelta | None]]
"""What became of each message: None for done, or after how long it comes again."""


class House:
    """A replica in memory, and what became of what it was handed."""

    def __init__(self) -> None:
        self.bus = SteppedBus(BEGINNING)
        self.settled: Settled = {}
        catalog = Catalog(self.bus)
        self.replica = SteppedReplica(self.bus, catalog)

    async def put(self) -> None:
        """Store the template."""
        await self.replica.store.catalog.put(flows.stored(flows.template()))

    async def publish(self, entries: Iterable[Entry]) -> list[RawMessage]:
        """Store messages."""
        for entry in entries:
            await self.bus.publish(entry.address.subject, entry.body)
        return self.bus.messages[FLOW]

    def delivery(self, message: RawMessage, delivered: int = 1) -> MemoryDelivery:
        """Hand out a message."""
        became = self.settled.setdefault(message.sequence, [])
        return MemoryDelivery(message, delivered, became.append)


@pytest.fixture
async def house() -> House:
    """With the template stored."""
    house = House()
    await house.put()
    return house


def ids_of(number: int) -> list[str]:
    """The ids of this many flows."""
    return [ids.flow_id_from_key("refund", str(index)) for index in range(number)]


def broken_for(flow_id: str) -> Callable[..., Any]:
    """The fold, with a bug that one flow meets."""

    def breaks(template: object, history: Iterable[Recorded], *more: object) -> Any:
        history = list(history)
        if history and history[0].event.flow_id == flow_id:
            raise ZeroDivisionError("a bug in the fold")
        return fold(template, history, *more)  # type: ignore[arg-type]

    return breaks


async def test_a_fold_that_breaks_for_one_flow_in_a_hundred_keeps_no_other_flow_from_its_due(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = ids_of(100)
    poisoned = everyone[42]
    for module in (lag, flow_store):
        monkeypatch.setattr(module, "fold", broken_for(poisoned))
    # Half of the flows are complete, and folded from what was delivered; half have to be read.
    entries = [flows.start(each) for each in everyone] + [flows.enriched(each) for each in everyone]
    entries += [flows.notified(each) for each in everyone if int(each, 16) % 2]
    messages = await house.publish(entries)
    await house.replica.track([house.delivery(message) for message in messages])
    of_flow = {message.sequence: message.subject.split(".")[2] for message in messages}
    for sequence, became in house.settled.items():
        if of_flow[sequence] == poisoned:
            assert became[0] is not None, "it comes again"
        else:
            assert became == [None]
    (trouble,) = house.replica.troubles
    assert (trouble.loop, trouble.about, trouble.error) == ("track", poisoned, "BUG")
    assert "a bug in the fold" in trouble.text


async def test_a_complete_flow_that_cannot_be_folded_is_contained_too(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [flows.start(), flows.enriched(), flows.notified()]
    messages = await house.publish(entries)
    with monkeypatch.context() as broken:
        for module in (lag, flow_store):
            broken.setattr(module, "fold", broken_for(flows.FLOW_ID))
        await house.replica.track([house.delivery(message) for message in messages])
        assert all(became[0] is not None for became in house.settled.values())
    house.settled.clear()
    await house.replica.track([house.delivery(message, 2) for message in messages])
    assert all(became == [None] for became in house.settled.values())


async def test_what_is_handed_out_twice_at_once_counts_once_and_is_settled_twice(house: House) -> None:
    messages = await house.publish([flows.start(), flows.enriched()])
    first, again = messages[0], messages[1]
    await house.replica.track(
        [house.delivery(again), house.delivery(first), house.delivery(again, 2), house.delivery(first, 2)]
    )
    assert house.settled == {first.sequence: [None, None], again.sequence: [None, None]}
    assert not list(house.replica.troubles)


async def test_a_message_that_fails_again_and_again_comes_less_and_less_often(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_store, "fold", broken_for(flows.FLOW_ID))
    (message,) = await house.publish([flows.start()])
    for delivered in (1, 2, 3, 30):
        await house.replica.track([house.delivery(message, delivered)])
    waits = [wait for wait in house.settled[message.sequence] if wait is not None]
    assert len(waits) == 4
    assert waits == sorted(waits)
    assert waits[0] < waits[1] < waits[2]
    assert waits[3] <= timedelta(minutes=5)


async def test_a_template_that_is_not_there_yet_is_looked_for_again_before_its_flow_is_given_up(house: House) -> None:
    entry = flows.start(flow_type="unheard")
    (message,) = await house.publish([entry])
    for delivered in (1, 2, 3):
        await house.replica.track([house.delivery(message, delivered)])
    assert None not in house.settled[message.sequence]
    assert not house.bus.quarantined
    await house.replica.track([house.delivery(message, 4)])
    assert house.settled[message.sequence][-1] is None
    assert len(house.bus.quarantined) == 1


async def test_failures_are_counted(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[tuple[str, int, object]] = []

    class Counting:
        def add(self, name: str, amount: int, attributes: object) -> None:
            counted.append((name, amount, attributes))

        def close(self) -> None:
            """Nothing is left to send."""

    telemetry.use_counters(Counting())
    try:
        troubles = Troubles()
        troubles.failed("due", flows.FLOW_ID, ZeroDivisionError("bug"))
        troubles.failed("due", "", HandrailError(ErrorReason.ERROR_REASON_FLOW_BUSY, "busy"))
    finally:
        telemetry.use_counters(None)
    assert counted == [
        ("failures", 1, {"loop": "due", "error": "BUG"}),
        ("failures", 1, {"loop": "due", "error": "FLOW_BUSY"}),
    ]


async def test_a_trouble_is_over_when_its_flow_goes_well() -> None:
    troubles = Troubles()
    for _ in range(3):
        troubles.failed("decide", flows.FLOW_ID, ZeroDivisionError("bug"))
    (trouble,) = troubles
    assert trouble.times == 3
    troubles.succeeded("decide", flows.FLOW_ID)
    assert not list(troubles)


async def test_a_loop_that_breaks_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "_FIRST_WAIT", timedelta())
    stopping, troubles = asyncio.Event(), Troubles()
    runs = 0

    async def loop(stopping: asyncio.Event) -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise ZeroDivisionError(f"run {runs}")
        stopping.set()

    await keep_running("due", loop, stopping, troubles)
    assert runs == 3
    (trouble,) = troubles
    assert (trouble.loop, trouble.about, trouble.times) == ("due", "", 2)


async def test_the_broker_is_told_of_what_is_still_worked_on() -> None:
    told: list[int] = []

    class Told(MemoryDelivery):
        def in_progress(self) -> None:
            told.append(self.sequence)

    held = Held()
    deliveries = [Told(RawMessage("flow.refund.x", b"", sequence, BEGINNING), 1, lambda _: None) for sequence in (1, 2)]
    for delivery in deliveries:
        held.add(delivery)
    deliveries[0].ack()
    held.let_go()
    await held.tell()
    assert told == [2]


def test_what_is_settled_is_let_go_and_what_is_not_is_kept() -> None:
    class Referred(MemoryDelivery):
        """One that a weak reference can point to."""

    held = Held()
    deliveries = [
        Referred(RawMessage("flow.refund.x", b"", sequence, BEGINNING), 1, lambda _: None) for sequence in (1, 2)
    ]
    references = [weakref.ref(delivery) for delivery in deliveries]
    for delivery in deliveries:
        held.add(delivery)
    deliveries[0].ack()
    del delivery
    deliveries.clear()
    held.let_go()
    assert [reference() is None for reference in references] == [True, False]


async def test_a_flow_whose_timers_are_far_away_has_three_seconds_before_it_costs_any(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hurry, "_FAR", timedelta(seconds=20))
    waiting, now = house.replica.lag, 0.0
    monkeypatch.setattr(waiting, "_clock", lambda: now)
    (start,) = await house.publish([flows.start()])
    waiting.take("track", house.delivery(start))
    now = 2.9
    await waiting.flush(everything=False)
    _, *others = await house.publish([flows.enriched(), flows.notified()])
    for message in others:
        waiting.take("track", house.delivery(message))
    await waiting.flush(everything=False)
    assert list(house.settled.values()) == [[None], [None], [None]]
    assert not house.bus.messages[TIMER]


@pytest.mark.parametrize("shortest, is_done", [(1, True), (60, False)])
async def test_news_of_a_flow_in_hand_waits_for_long_only_if_the_timeouts_of_all_steps_are_long(
    monkeypatch: pytest.MonkeyPatch, shortest: int, *, is_done: bool
) -> None:
    house = House()
    template = flows.template(timeout=timedelta(seconds=60))
    template.proto.steps[1].timeout.FromTimedelta(timedelta(seconds=shortest))
    await house.replica.store.catalog.put(flows.stored(Template.compile(template.proto, template.contracts)))
    waiting, now = house.replica.lag, 0.0
    monkeypatch.setattr(waiting, "_clock", lambda: now)
    start, enriched = await house.publish([flows.start(), flows.enriched()])
    waiting.take("track", house.delivery(start))
    await waiting.flush()
    waiting.take("track", house.delivery(enriched))
    now = 0.3
    await waiting.flush(everything=False)
    await waiting._late.finish()
    assert house.settled[enriched.sequence] == ([None] if is_done else [])


async def test_a_flow_that_outlives_the_lag_has_its_timers_before_its_messages_are_acknowledged(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hurry, "_FAR", timedelta(seconds=20))
    waiting, now = house.replica.lag, 0.0
    monkeypatch.setattr(waiting, "_clock", lambda: now)
    (start,) = await house.publish([flows.start()])
    timers_at_ack: list[int] = []
    waiting.take("track", MemoryDelivery(start, 1, lambda _: timers_at_ack.append(len(house.bus.messages[TIMER]))))
    now = 3.1
    await waiting.flush(everything=False)
    await waiting.flush()
    assert timers_at_ack == [2], "of the step, and of the flow"


async def test_finished_flows_wait_while_the_broker_does_not_say_whether_they_have_decisions(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = await house.publish([flows.start(), flows.enriched(), flows.notified()])
    replica = house.replica
    for message in messages:
        replica.lag.take("track", house.delivery(message))
    reads: list[object] = []
    with monkeypatch.context() as busy:
        busy.setattr(replica.store, "decided", AsyncMock(side_effect=BrokerUnavailable("busy")))
        busy.setattr(replica.store, "read", lambda *names, **options: reads.append(names))
        await replica.lag.flush(everything=False)
    assert house.settled == {message.sequence: [] for message in messages}
    assert not reads, "nothing more is asked of a broker that is busy"
    await replica.lag.flush(everything=False)
    assert house.settled == {message.sequence: [None] for message in messages}
    assert not list(replica.troubles)


async def test_p7_a_message_that_comes_while_another_is_quarantined_is_not_taken_for_read(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = await house.publish([flows.start(), flows.enriched(), flows.notified()])
    garbage_subject = flows.enriched().address._replace(event_id="e" * 32).subject
    garbage = await house.bus.by_sequence(FLOW, await house.bus.publish(garbage_subject, b"\xff"))
    late = await house.bus.by_sequence(FLOW, await house.bus.publish(f"{garbage_subject}x", b"\xff"))
    assert garbage is not None
    assert late is not None
    replica = house.replica
    for message in (*complete[:3], garbage):
        replica.lag.take("track", house.delivery(message))
    put = replica.quarantine.put

    async def meanwhile(**options: Any) -> None:
        if options["sequence"] == garbage.sequence:
            replica.lag.take("track", house.delivery(late))
        await put(**options)

    monkeypatch.setattr(replica.quarantine, "put", meanwhile)
    await replica.lag.flush(everything=False)
    assert house.settled[garbage.sequence] == [None]
    assert house.settled[late.sequence] == []
    await replica.lag.flush()
    assert all(became == [None] for became in house.settled.values())
    assert len(house.bus.quarantined) == 2
