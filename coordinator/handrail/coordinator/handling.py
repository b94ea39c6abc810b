"""Handling deliveries: what becomes of them when the work on them fails."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Sequence
from datetime import timedelta

from handrail.mesh import quarantine
from handrail.mesh.bus import Bus, Delivery
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow
from handrail.mesh.subjects import COORDINATOR
from handrail.v1.error_reason_pb2 import ErrorReason

log = logging.getLogger(__name__)

TRY_AGAIN = timedelta(milliseconds=500)
"""How long a message waits that met a held lease, or a broker that does not answer."""

TRY_AGAIN_LATER = timedelta(seconds=10)
"""How long a message waits whose handling broke unexpectedly: it would break again at once."""

HOPELESS = frozenset(
    {
        ErrorReason.ERROR_REASON_FLOW_TYPE_NOT_FOUND,
        ErrorReason.ERROR_REASON_TEMPLATE_NOT_FOUND,
        ErrorReason.ERROR_REASON_FLOW_NOT_FOUND,
        ErrorReason.ERROR_REASON_MALFORMED,
        ErrorReason.ERROR_REASON_WRONG_ADDRESS,
        ErrorReason.ERROR_REASON_WRONG_EVENT_ID,
    }
)
"""Reasons that trying again does not change: the message goes into quarantine."""


async def guarded(bus: Bus, deliveries: Sequence[Delivery], work: Awaitable[None]) -> None:
    """Await the work on some deliveries; acknowledge them, quarantine them, or have them come again."""
    try:
        try:
            await work
        except HandrailError as error:
            if error.reason not in HOPELESS:
                raise
            for delivery in deliveries:
                await _quarantine(bus, delivery, error.reason, error.text)
    except HandrailError as error:
        log.info("%s is tried again: %s", deliveries[0].subject, error.text)
        _again(deliveries, TRY_AGAIN)
    except Exception:
        log.exception("%s could not be handled; it is tried again", deliveries[0].subject)
        _again(deliveries, TRY_AGAIN_LATER)
    else:
        for delivery in deliveries:
            delivery.ack()


async def raise_again(error: HandrailError) -> None:
    """The work on a delivery that could not even be read."""
    raise error


async def quarantine_void(bus: Bus, delivery: Delivery, flow: Flow) -> None:
    """Put a message into quarantine that the fold found to break its contract, or whose flow never began."""
    if f".{COORDINATOR}." in delivery.subject:
        return
    void = flow.void.get(delivery.sequence)
    if void is not None and void.reason:
        await _quarantine(bus, delivery, void.reason, void.text)
    elif flow.first is None:
        text = f"no flow {flow.flow_id} has begun"
        await _quarantine(bus, delivery, ErrorReason.ERROR_REASON_FLOW_NOT_FOUND, text)


def _again(deliveries: Sequence[Delivery], delay: timedelta) -> None:
    for delivery in deliveries:
        delivery.nak(delay)


async def _quarantine(bus: Bus, delivery: Delivery, reason: ErrorReason.ValueType, detail: str) -> None:
    await quarantine.put(
        bus,
        subject=delivery.subject,
        body=delivery.body,
        sequence=delivery.sequence,
        reason=reason,
        detail=detail,
        reporter=COORDINATOR,
    )
