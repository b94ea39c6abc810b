"""The durable consumer `decide`: messages that may need a decision."""

from __future__ import annotations

from handrail.coordinator.reconcile.reconciler import Reconciler
from handrail.coordinator.reconcile.settle import Guard
from handrail.mesh.bus import Delivery
from handrail.mesh.wire import envelope


class DecideConsumer:
    """Reconciles the flow of each message that `decide` delivers."""

    def __init__(self, guard: Guard, reconciler: Reconciler) -> None:
        self._guard = guard
        self._reconciler = reconciler

    async def handle(self, delivery: Delivery) -> None:
        """Reconciles the flow of one message. Raises what `Reconciler.reconcile` raises, and MALFORMED."""
        recorded = envelope.decode(delivery.subject, delivery.body, sequence=delivery.sequence, time=delivery.time)
        flow_type, flow_id = recorded.address.flow_type, recorded.address.flow_id
        flow = await self._reconciler.reconcile(
            flow_type, flow_id, since=delivery.sequence, at_least=delivery.sequence, now=delivery.time
        )
        await self._guard.quarantine_void(delivery, flow)
