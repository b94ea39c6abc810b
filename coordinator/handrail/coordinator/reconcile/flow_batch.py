"""A flow batch: deliveries of one flow that are settled together."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from handrail.mesh.bus import Delivery
from handrail.mesh.wire import envelope
from handrail.mesh.wire.envelope import Recorded


class FlowBatch:
    """Deliveries of one flow. `durable` delivered the first, at `since`, in seconds of the caller's clock; the oldest
    came in this epoch of what is known to be finished.
    """

    __slots__ = ("_known", "_recorded", "_seen", "deliveries", "durable", "epoch", "since", "taken", "unhurried_at")

    def __init__(self, durable: str, *, since: float, epoch: int) -> None:
        self.durable = durable
        self.since = since
        self.epoch = epoch
        self.deliveries: list[Delivery] = []
        self.taken: Counter[str] = Counter()
        """How many deliveries of each durable were added, those included that could not be decoded."""
        self.unhurried_at = -1
        """The position of the flow in hand (0: it is in nobody's) whose first timer was found to be far away."""
        self._recorded: dict[int, Recorded] = {}
        self._seen = 0
        self._known = 0

    def add(self, delivery: Delivery, *, durable: str, epoch: int) -> None:
        """Adds a delivery of this durable, which came in this epoch; the same message may come several times."""
        self.deliveries.append(delivery)
        self.taken[durable] += 1
        self.epoch = min(self.epoch, epoch)
        self.unhurried_at = -1

    def begin_anew(self, newer: FlowBatch | None) -> None:
        """Adds what another batch has, and makes all messages news again."""
        if newer is not None:
            self.deliveries.extend(newer.deliveries)
            self.taken.update(newer.taken)
            self.epoch = min(self.epoch, newer.epoch)
        self._known = 0

    @property
    def first_sequence(self) -> int:
        """The position of the oldest message."""
        return min(delivery.sequence for delivery in self.deliveries)

    @property
    def last_sequence(self) -> int:
        """The position of the newest message."""
        return max(delivery.sequence for delivery in self.deliveries)

    @property
    def sequences(self) -> set[int]:
        """The positions of its messages."""
        return {delivery.sequence for delivery in self.deliveries}

    @property
    def first_time(self) -> datetime:
        """When the oldest message was stored."""
        return min(delivery.time for delivery in self.deliveries)

    @property
    def last_time(self) -> datetime:
        """When the newest message was stored."""
        return max(delivery.time for delivery in self.deliveries)

    @property
    def history(self) -> list[Recorded]:
        """The decoded messages, each once, in stream order."""
        return [self._recorded[sequence] for sequence in sorted(self._recorded)]

    @property
    def is_decoded(self) -> bool:
        """Whether every delivery is decoded."""
        return self._seen == len(self.deliveries)

    def news(self) -> list[Recorded]:
        """The history, if it grew since the last call; else nothing."""
        if len(self._recorded) == self._known:
            return []
        self._known = len(self._recorded)
        return self.history

    def decode(self) -> list[tuple[Delivery, Exception]]:
        """Decodes what was added. Takes out what can't be decoded, and returns it with the errors."""
        added, self.deliveries = self.deliveries[self._seen :], self.deliveries[: self._seen]
        failed: list[tuple[Delivery, Exception]] = []
        for delivery in added:
            try:
                self._recorded[delivery.sequence] = envelope.decode(
                    delivery.subject, delivery.body, sequence=delivery.sequence, time=delivery.time
                )
                self.deliveries.append(delivery)
            except Exception as error:
                failed.append((delivery, error))
        self._seen = len(self.deliveries)
        return failed
