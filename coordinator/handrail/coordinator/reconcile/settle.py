"""Settles deliveries: what happens to them if their handling fails. No exception passes beyond this module."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from datetime import timedelta

from handrail.coordinator.reconcile.late import effect_of
from handrail.coordinator.reconcile.pace import Pace
from handrail.coordinator.reconcile.troubles import Troubles
from handrail.mesh.bus import Delivery
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow
from handrail.mesh.streams.durables import ACK_WAIT
from handrail.mesh.streams.quarantine import Quarantine
from handrail.mesh.waiting import pause
from handrail.mesh.wire.subjects import COORDINATOR
from handrail.v1.error_reason_pb2 import ErrorReason

log = logging.getLogger(__name__)

_FIRST_WAIT = timedelta(milliseconds=500)
_LONGEST_WAIT = timedelta(seconds=10)
"""The longest wait before a message is redelivered that met a held lease or a silent broker; it doubles up to this."""

_FIRST_WAIT_AFTER_A_BUG = timedelta(seconds=2)
_LONGEST_WAIT_AFTER_A_BUG = timedelta(minutes=5)
"""The wait before a message is redelivered whose handling failed unexpectedly: it will most likely fail again."""

_HOPELESS = frozenset(
    {
        ErrorReason.ERROR_REASON_MALFORMED,
        ErrorReason.ERROR_REASON_WRONG_ADDRESS,
        ErrorReason.ERROR_REASON_WRONG_EVENT_ID,
        ErrorReason.ERROR_REASON_FLOW_ARCHIVED,
    }
)
"""Reasons that a retry does not change: the message goes into quarantine (the dead-letter queue)."""

_NOT_THERE = frozenset(
    {
        ErrorReason.ERROR_REASON_FLOW_TYPE_NOT_FOUND,
        ErrorReason.ERROR_REASON_TEMPLATE_NOT_FOUND,
        ErrorReason.ERROR_REASON_FLOW_NOT_FOUND,
    }
)
"""Reasons that a lagging replica of a stream also gives: hopeless only after some tries."""

_TRIES = 4

_LOOKS = 10
"""How often settled deliveries are let go between two reports of the others."""


def is_hopeless(error: HandrailError, delivered: int) -> bool:
    """Tells whether a message that failed with this error after this many deliveries need not be tried again."""
    return error.reason in _HOPELESS or (error.reason in _NOT_THERE and delivered >= _TRIES)


def is_given_up(error: HandrailError) -> bool:
    """Tells whether messages of a flow that fails with this error are quarantined sooner or later."""
    return is_hopeless(error, _TRIES)


class Guard:
    """Contains the handling of deliveries: acknowledges them, quarantines them, or has them redelivered later."""

    def __init__(self, quarantine: Quarantine, troubles: Troubles) -> None:
        self._quarantine = quarantine
        self._troubles = troubles

    async def run(self, loop: str, deliveries: Sequence[Delivery], work: Awaitable[None]) -> None:
        """Does what `succeeds` does, and acknowledges the deliveries after a success."""
        if await self.succeeds(loop, deliveries, work):
            _acknowledge(deliveries)

    async def succeeds(self, loop: str, deliveries: Sequence[Delivery], work: Awaitable[None]) -> bool:
        """Awaits a loop's work on some deliveries of one flow. Raises nothing but a cancellation.

        Failed deliveries are redelivered after a wait that grows with their delivery count, and count as a trouble of
        their flow until one succeeds. Hopeless ones are quarantined. Returns whether the work succeeded: then the
        caller settles the deliveries.
        """
        about = _about(deliveries[0])
        delivered = max(delivery.delivered for delivery in deliveries)
        try:
            try:
                await work
                succeeded = True
            except HandrailError as error:
                if not is_hopeless(error, delivered):
                    raise
                succeeded = False
                for delivery in deliveries:
                    await self._put(delivery, error.reason, self._explained(error, delivery))
                _acknowledge(deliveries)
        except HandrailError as error:
            self._troubles.failed(loop, about, error)
            _again(deliveries, _growing(_FIRST_WAIT, _LONGEST_WAIT, delivered))
        except Exception as error:
            self._troubles.failed(loop, about, error)
            _again(deliveries, _growing(_FIRST_WAIT_AFTER_A_BUG, _LONGEST_WAIT_AFTER_A_BUG, delivered))
        else:
            self._troubles.succeeded(loop, about)
            return succeeded
        return False

    async def quarantine_void(self, delivery: Delivery, flow: Flow) -> None:
        """Quarantines a message that breaks its contract according to the fold, or whose flow never began."""
        if f".{COORDINATOR}." in delivery.subject:
            return
        void = flow.void.get(delivery.sequence)
        if void is not None and void.reason:
            await self._put(delivery, void.reason, void.text)
        elif flow.first is None:
            text = f"no flow {flow.flow_id} has begun"
            await self._put(delivery, ErrorReason.ERROR_REASON_FLOW_NOT_FOUND, text)

    def _explained(self, error: HandrailError, delivery: Delivery) -> str:
        """The error's text. A late message about an effect is a matter for a person."""
        if error.reason != ErrorReason.ERROR_REASON_FLOW_ARCHIVED:
            return error.text
        effect = effect_of(delivery, self._quarantine.catalog)
        if effect:
            log.error("flow %s: %s", _about(delivery), effect)
        return f"{error.text}; {effect}" if effect else error.text

    async def _put(self, delivery: Delivery, reason: ErrorReason.ValueType, detail: str) -> None:
        await self._quarantine.put(
            subject=delivery.subject, body=delivery.body, sequence=delivery.sequence, reason=reason, detail=detail
        )


class Held:
    """Unsettled deliveries that may take longer than the broker waits: it is told in time that they are in progress.

    Settled ones are let go within a second: they take memory, and time of each search for cycles.
    """

    def __init__(self) -> None:
        self._held: set[Delivery] = set()

    def add(self, delivery: Delivery) -> None:
        """Adds a delivery."""
        self._held.add(delivery)

    async def run(self, stopping: asyncio.Event) -> None:
        """Reports each delivery as in progress, at a third of the broker's ack wait, until `stopping` is set."""
        while not stopping.is_set():
            for _ in range(_LOOKS):
                await pause(stopping, ACK_WAIT / 3 / _LOOKS)
                self.let_go()
            await self.tell()

    def let_go(self) -> None:
        """Lets go of what is settled."""
        self._held = {delivery for delivery in self._held if not delivery.settled}

    async def tell(self) -> None:
        """Reports each delivery as in progress now."""
        pace = Pace()
        for delivery in list(self._held):
            delivery.in_progress()
            await pace.keep()


async def raise_again(error: Exception) -> None:
    """Raises the error of a delivery that could not even be read."""
    raise error


def _about(delivery: Delivery) -> str:
    """Returns the flow's id from the subject."""
    tokens = delivery.subject.split(".", 3)
    return tokens[2][:32] if len(tokens) > 2 else ""


def _growing(first: timedelta, longest: timedelta, delivered: int) -> timedelta:
    doublings = min(delivered - 1, 16)
    return min(first * (1 << doublings), longest)


def _acknowledge(deliveries: Sequence[Delivery]) -> None:
    for delivery in deliveries:
        delivery.ack()


def _again(deliveries: Sequence[Delivery], delay: timedelta) -> None:
    for delivery in deliveries:
        delivery.nak(delay)
