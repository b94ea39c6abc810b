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

LONGEST_LAG = timedelta(seconds=10)
"""How long they wait at most while the coordinator is behind, and has room."""

_WAITING_AT_MOST = 4096
"""The most deliveries of one durable that make room for others before they are settled. Each durable has its own: many
events keep no decision waiting.
"""


class Backlog:
    """Counts what was taken of each durable and is not settled, and knows how far its deliveries have come."""

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()
        self._latest: dict[str, Delivery] = {}
        self._has_room: dict[str, bool] = {}

    def take(self, durable: str, delivery: Delivery) -> None:
        """Counts a delivery as waiting, and makes room for another unless too many wait."""
        self._waiting[durable] += 1
        self._latest[durable] = delivery
        if self._waiting[durable] <= _WAITING_AT_MOST:
            delivery.make_room()

    def let_go(self, batch: FlowBatch) -> None:
        """Counts what is settled as waiting no more."""
        self._waiting.subtract(batch.taken)

    def look(self) -> None:
        """Call it once all that is settled now was let go: notes which durables have room for others."""
        self._has_room = {durable: waiting <= _WAITING_AT_MOST for durable, waiting in self._waiting.items()}

    def is_long_over(self, batch: FlowBatch, waited: timedelta) -> bool:
        """Tells whether the long lag of a batch is over, which has waited for so long.

        A coordinator that is behind gets a flow's next message later than it was stored. So while it has room, it
        counts how much later than the flow's oldest message the latest one of the durable was stored.
        """
        latest = self._latest[batch.durable]
        is_behind = latest.pending > 0 and self._has_room.get(batch.durable, True)
        if waited < LONG_LAG or waited >= LONGEST_LAG or not is_behind:
            return waited >= LONG_LAG
        return latest.time - batch.first_time >= LONG_LAG
