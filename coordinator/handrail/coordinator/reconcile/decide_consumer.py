"""The durable `decide`: messages that may need a decision at once. Their timers wait for the end of the lag."""

from __future__ import annotations

from handrail.coordinator.reconcile.consuming import AtOnce, flow_of
from handrail.coordinator.reconcile.flow_in_hand import Delivered
from handrail.coordinator.reconcile.flows_in_hand import FlowKey
from handrail.coordinator.reconcile.lag import Lag
from handrail.coordinator.reconcile.reconciler import Reconciler
from handrail.coordinator.reconcile.settle import Guard
from handrail.mesh.bus import Delivery
from handrail.mesh.bus.expectation import last_before
from handrail.mesh.wire import envelope
from handrail.mesh.wire.subjects import flow_filter


class DecideConsumer:
    """Decides on what `decide`, or the consumer beside it, delivers."""

    def __init__(self, reconciler: Reconciler, guard: Guard, lag: Lag, at_once: AtOnce) -> None:
        self._reconciler = reconciler
        self._guard = guard
        self._lag = lag
        self._at_once = at_once

    def take(self, durable: str, delivery: Delivery) -> None:
        """Takes a delivery. Our own appends, and what was decided on with them, need nothing more."""
        if self._reconciler.is_decided(flow_of(delivery.subject), delivery.sequence):
            self._lag.take(durable, delivery)
        else:
            self._at_once.begin(self.decide(durable, delivery))

    async def decide(self, durable: str, delivery: Delivery) -> None:
        """Decides on a delivery."""
        epoch = self._lag.epoch
        work = self._attend(flow_of(delivery.subject), delivery)
        if await self._guard.succeeds(durable, [delivery], work):
            self._lag.take(durable, delivery, epoch=epoch)

    async def _attend(self, key: FlowKey, delivery: Delivery) -> None:
        def delivered() -> Delivered:
            recorded = envelope.decode(delivery.subject, delivery.body, sequence=delivery.sequence, time=delivery.time)
            return Delivered(recorded, last_before(delivery.block, flow_filter(*key)))

        flow = await self._reconciler.attend(key, at_least=delivery.sequence, now=delivery.time, delivered=delivered)
        await self._guard.quarantine_void(delivery, flow)
