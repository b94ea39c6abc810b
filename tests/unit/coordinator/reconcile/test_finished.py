"""Which messages the sweep need not read: all of a flow that this replica folded with them, and found closed."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from handrail.coordinator.reconcile import finished
from handrail.coordinator.reconcile.finished import Finished
from handrail.mesh.bus import RawMessage
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import TRACK
from handrail.mesh.wire.envelope import Entry
from handrail.testing.memory import MemoryDelivery
from tests.support import flows
from tests.support.simulation import BEGINNING
from tests.support.stepped import SteppedBus, SteppedReplica


class House:
    """A replica in memory that knows the refund."""

    def __init__(self) -> None:
        self.bus = SteppedBus(BEGINNING)
        self.replica = SteppedReplica(self.bus, Catalog(self.bus))

    async def put(self) -> None:
        """Store the template."""
        await self.replica.store.catalog.put(flows.stored(flows.template()))

    async def publish(self, *entries: Entry) -> list[RawMessage]:
        """Store messages; the new ones."""
        before = len(self.bus.messages[FLOW])
        for entry in entries:
            await self.bus.publish(entry.address.subject, entry.body)
        return self.bus.messages[FLOW][before:]

    async def handle(self, messages: Iterable[RawMessage]) -> None:
        """Let the lag of these messages end."""
        await self.replica.track([MemoryDelivery(message, 1, lambda _: None) for message in messages])

    @property
    def first_other(self) -> int:
        """The first message that the sweep would read."""
        return self.replica.finished.first_other(0)


@pytest.fixture
async def house() -> House:
    """With the template."""
    house = House()
    await house.put()
    return house


def test_everything_is_unknown_at_first_and_after_it_is_forgotten() -> None:
    known = Finished()
    assert known.first_other(0) == 1
    assert known.first_other(41) == 42
    known.add([1, 2, 42])
    known.clear()
    assert known.first_other(0) == 1
    assert 42 not in known


def test_what_lies_between_is_found() -> None:
    known = Finished()
    known.add(sequence for sequence in range(1, 30_000) if sequence not in (17, 8192, 20_000))
    assert [known.first_other(after) for after in (0, 17, 8192, 20_000, 40_000)] == [17, 8192, 20_000, 30_000, 40_001]
    assert 16 in known
    assert 17 not in known


def test_a_message_after_the_end_of_a_flow_is_another() -> None:
    known = Finished()
    known.add(range(1, 5))
    assert known.first_other(0) == 5
    assert 5 not in known


def test_the_oldest_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished, "_BLOCKS_AT_MOST", 2)
    known = Finished()
    known.add(range(1, 3 * 8192))
    assert known.first_other(0) == 1
    assert known.first_other(8191) == 3 * 8192


async def test_a_flow_that_began_and_ended_within_the_lag_is_known(house: House) -> None:
    await house.handle(await house.publish(flows.start(), flows.enriched(), flows.notified()))
    assert house.first_other == 4


async def test_a_flow_that_outlives_the_lag_is_known_whole_once_it_is_closed(house: House) -> None:
    await house.handle(await house.publish(flows.start()))
    assert house.first_other == 1, "it is open"
    await house.handle(await house.publish(flows.enriched()))
    assert house.first_other == 1
    await house.handle(await house.publish(flows.notified()))
    assert house.first_other == 4


async def test_a_message_that_no_delivery_brought_is_not_known(house: House) -> None:
    await house.handle(await house.publish(flows.start()))
    await house.publish(flows.enriched())
    await house.handle(await house.publish(flows.notified()))
    assert house.first_other == 2


async def test_p7_nothing_of_a_flow_is_known_whose_beginning_this_replica_did_not_see(house: House) -> None:
    # What follows the beginning would be missed in a later fold: without a halt, a flow may look complete.
    await house.publish(flows.start())
    await house.handle(await house.publish(flows.enriched(), flows.notified()))
    assert [sequence for sequence in (1, 2, 3) if sequence in house.replica.finished] == []


@pytest.mark.parametrize("handled", [0, 1])
async def test_p7_what_waited_while_the_broker_may_have_lost_it_is_not_known(house: House, handled: int) -> None:
    messages = await house.publish(flows.start(), flows.enriched(), flows.notified())
    await house.handle(messages[:handled])
    for message in messages[handled:]:
        house.replica.lag.take(TRACK, MemoryDelivery(message, 1, lambda _: None))
    house.replica.reconciler.flows.forget()
    house.replica.finished.clear()
    await house.replica.lag.flush()
    assert [sequence for sequence in (1, 2, 3) if sequence in house.replica.finished] == []


async def test_p7_what_was_being_decided_while_the_broker_may_have_lost_it_is_not_known(house: House) -> None:
    (start,) = await house.publish(flows.start())
    await house.replica.reconciler.reconcile("refund", flows.FLOW_ID, since=0, at_least=1, now=BEGINNING)
    messages = await house.publish(flows.enriched(), flows.notified())
    epoch = house.replica.lag.epoch
    house.replica.finished.clear()
    for message in (start, *messages):
        house.replica.lag.take(TRACK, MemoryDelivery(message, 1, lambda _: None), epoch=epoch)
    await house.replica.lag.flush()
    assert house.first_other == 1
