"""Backlog: how many deliveries of each durable wait to be settled, and how long a flow has had to go on meanwhile."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from handrail.coordinator.reconcile.flow_batch import FlowBatch
from handrail.mesh.bus import Delivery

LONG_LAG = timedelta(seconds=3)
"""How long deliveries wait if the first timer is far away: under load, most flows are over by then. A flow that is not
costs two reads and its timers, three times as much as one that is; so others take longer, and outlive the lag as well.
"""

LONGEST_LAG = timedelta(seconds=15)
"""How long they wait at most while the coordinator is behind. It is less than the timer may be away."""

_WAITING_AT_MOST = 4096
"""The most deliveries of one durable that make room for others before they are settled. Each durable has its own: many
events keep no decision waiting.
"""

_NEARLY_FULL = 7000
"""So many deliveries of a durable leave no room for more, as its pull takes 4,096 at a time; to wait is in vain."""


class Backlog:
    """Counts what was taken of each durable and is not settled, and knows how far its deliveries have come."""

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()
        self._newest: dict[str, Delivery] = {}
        self._undelivered: dict[str, int] = {}
        self._surplus: dict[str, int] = {}

    def take(self, durable: str, delivery: Delivery) -> None:
        """Counts a delivery as waiting, and makes room for another unless too many wait."""
        self._waiting[durable] += 1
        newest = self._newest.get(durable)
        if newest is None or delivery.sequence > newest.sequence:
            self._newest[durable] = delivery
        self._undelivered[durable] = delivery.pending
        if self._waiting[durable] <= _WAITING_AT_MOST:
            delivery.make_room()

    def let_go(self, batch: FlowBatch) -> None:
        """Counts what is settled as waiting no more."""
        self._waiting.subtract(batch.taken)

    def look(self) -> None:
        """Call it once all that is settled now was let go: notes where too many are left for others to come."""
        self._surplus = {
            durable: waiting - _NEARLY_FULL // 2
            for durable, waiting in self._waiting.items()
            if waiting >= _NEARLY_FULL
        }

    def must_go(self, batch: FlowBatch) -> bool:
        """Tells whether a batch has to be settled to make room for others. Ask for the oldest first."""
        if self._surplus.get(batch.durable, 0) <= 0:
            return False
        self._surplus[batch.durable] -= len(batch.deliveries)
        return True

    def is_long_over(self, batch: FlowBatch, waited: timedelta) -> bool:
        """Tells whether the long lag of a batch is over, which has waited for so long.

        A coordinator that is behind gets a flow's next message later than it was stored. So then it counts how much
        later than the flow's newest message the newest one of the durable was stored.
        """
        if waited < LONG_LAG or waited >= LONGEST_LAG or not self._undelivered[batch.durable]:
            return waited >= LONG_LAG
        return self._newest[batch.durable].time - batch.last_time >= LONG_LAG
