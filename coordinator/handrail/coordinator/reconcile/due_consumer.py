"""The durable consumer `due`: timers that fired."""

from __future__ import annotations

import logging

from handrail.coordinator.reconcile.consuming import AtOnce
from handrail.coordinator.reconcile.reconciler import Reconciler
from handrail.coordinator.reconcile.settle import Guard, is_hopeless
from handrail.coordinator.reconcile.timer_schedule import known_sequence
from handrail.mesh.bus import Delivery
from handrail.mesh.errors import HandrailError
from handrail.mesh.wire.subjects import parse_due

log = logging.getLogger(__name__)


class DueConsumer:
    """Reconciles the flow of each timer that fired."""

    def __init__(self, reconciler: Reconciler, guard: Guard, at_once: AtOnce) -> None:
        self._reconciler = reconciler
        self._guard = guard
        self._at_once = at_once

    def take(self, durable: str, delivery: Delivery) -> None:
        """Takes the delivery of one timer."""
        self._at_once.begin(self._guard.run(durable, [delivery], self._reconcile(delivery)))

    async def _reconcile(self, delivery: Delivery) -> None:
        """Reads the flow at least as new as when the timer was armed. A missing flow is not an error."""
        due = parse_due(delivery.subject)
        try:
            await self._reconciler.reconcile(
                due.flow_type, due.flow_id, since=0, at_least=known_sequence(delivery.body), now=delivery.time
            )
        except HandrailError as error:
            if not is_hopeless(error, delivery.delivered):
                raise
            log.warning("timer %s belongs to a flow that no longer exists: %s", delivery.subject, error.text)
