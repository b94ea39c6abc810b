"""A coordinator that is behind waits for the rest of a flow, for ten seconds at most, while it has room for more."""

from __future__ import annotations

from datetime import timedelta

import pytest

from handrail.coordinator.reconcile import backlog as backlogs
from handrail.coordinator.reconcile.backlog import LONG_LAG, LONGEST_LAG, Backlog
from handrail.coordinator.reconcile.flow_batch import FlowBatch
from handrail.mesh.bus import RawMessage
from handrail.mesh.streams.durables import DECIDE, TRACK
from handrail.testing.memory import MemoryDelivery
from tests.support.simulation import BEGINNING

MOMENT = timedelta(milliseconds=1)


class Stored(MemoryDelivery):
    """A delivery of a message that was stored so long after the beginning, while so many are not delivered."""

    def __init__(self, after: timedelta, undelivered: int) -> None:
        super().__init__(RawMessage("", b"", 1, BEGINNING + after), 1, lambda _: None)
        self._undelivered = undelivered

    @property
    def pending(self) -> int:
        return self._undelivered


def taken(backlog: Backlog, *deliveries: Stored, durable: str = TRACK) -> FlowBatch:
    """A flow of which these were delivered."""
    batch = FlowBatch(durable, since=0.0, epoch=0)
    for delivery in deliveries:
        batch.add(delivery, durable=durable, epoch=0)
        backlog.take(durable, delivery)
    return batch


def test_a_flow_of_a_coordinator_that_is_up_to_date_waits_for_the_long_lag() -> None:
    backlog = Backlog()
    flow = taken(backlog, Stored(timedelta(), undelivered=0))
    assert not backlog.is_long_over(flow, LONG_LAG - MOMENT)
    assert backlog.is_long_over(flow, LONG_LAG)


def test_a_flow_waits_until_its_next_message_should_have_been_delivered_to_a_coordinator_that_is_behind() -> None:
    backlog = Backlog()
    flow = taken(backlog, Stored(timedelta(), undelivered=9))
    taken(backlog, Stored(LONG_LAG - MOMENT, undelivered=9))
    assert not backlog.is_long_over(flow, LONG_LAG)
    taken(backlog, Stored(LONG_LAG, undelivered=9))
    assert backlog.is_long_over(flow, LONG_LAG)


def test_p7_no_flow_waits_without_end_if_another_replica_takes_what_is_left() -> None:
    backlog = Backlog()
    flow = taken(backlog, Stored(timedelta(), undelivered=9))
    assert not backlog.is_long_over(flow, LONGEST_LAG - MOMENT)
    assert backlog.is_long_over(flow, LONGEST_LAG)


def test_what_is_left_in_one_durable_keeps_no_flow_of_another_waiting() -> None:
    backlog = Backlog()
    taken(backlog, Stored(timedelta(), undelivered=9))
    decided = taken(backlog, Stored(timedelta(), undelivered=0), durable=DECIDE)
    assert backlog.is_long_over(decided, LONG_LAG)


def test_messages_that_follow_each_other_keep_no_flow_waiting() -> None:
    backlog = Backlog()
    flow = taken(backlog, *(Stored(second * LONG_LAG / 3, undelivered=9) for second in range(4)))
    assert backlog.is_long_over(flow, LONG_LAG)


@pytest.mark.parametrize("durable", [TRACK, DECIDE])
def test_p7_no_flow_waits_longer_where_others_wait_for_room(monkeypatch: pytest.MonkeyPatch, durable: str) -> None:
    monkeypatch.setattr(backlogs, "_WAITING_AT_MOST", 4)
    backlog = Backlog()
    flows = [taken(backlog, Stored(timedelta(), undelivered=9), durable=durable) for _ in range(5)]
    assert not backlog.is_long_over(flows[0], LONG_LAG), "the finished ones go first"
    backlog.look()
    assert not backlog.is_long_over(flows[0], LONG_LAG - MOMENT)
    assert backlog.is_long_over(flows[0], LONG_LAG)
    backlog.let_go(flows[0])
    backlog.look()
    assert not backlog.is_long_over(flows[1], LONG_LAG)


def test_a_stream_that_begins_anew_keeps_no_flow_waiting() -> None:
    backlog = Backlog()
    taken(backlog, Stored(timedelta(hours=1), undelivered=9))
    flow = taken(backlog, Stored(timedelta(), undelivered=9))
    assert not backlog.is_long_over(flow, LONG_LAG)
    taken(backlog, Stored(LONG_LAG, undelivered=9))
    assert backlog.is_long_over(flow, LONG_LAG)
