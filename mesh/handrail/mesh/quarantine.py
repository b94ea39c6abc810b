"""Where messages go that break their contract: kept with their bytes, never dropped."""

from __future__ import annotations

import logging

from handrail.mesh import ids
from handrail.mesh.bus import Bus
from handrail.mesh.errors import AlreadyStored, HandrailError
from handrail.mesh.subjects import quarantine_subject
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import Quarantined

log = logging.getLogger(__name__)


async def put(
    bus: Bus,
    *,
    subject: str,
    body: bytes,
    sequence: int,
    reason: ErrorReason.ValueType,
    detail: str,
    reporter: str,
) -> None:
    """Keep a message in quarantine, with its bytes and the reason, in the name of `reporter`. Putting it there twice
    is harmless."""
    tokens = (subject.split(".", 6) + [""] * 6)[:6]
    event_id = tokens[5] if len(tokens[5]) == 32 else ids.quarantine_id(subject, body)
    record = Quarantined(
        reason=reason, detail=detail, subject=subject, stream_sequence=sequence, body=body, reporter=reporter
    )
    target = quarantine_subject(tokens[1], tokens[2], reporter, event_id)
    log.warning(
        "flow %s: message %d is quarantined (%s): %s", tokens[2][:32], sequence, ErrorReason.Name(reason), detail
    )
    try:
        await _store(bus, target, record)
    except HandrailError as error:
        if error.reason != ErrorReason.ERROR_REASON_TOO_LARGE:
            raise
        # With reason and subject around it, a message of just the largest size no longer fits: the FLOW stream still
        # has it.
        record.body = b""
        record.detail += f" (its bytes are in the FLOW stream at {sequence})"
        await _store(bus, target, record)


async def _store(bus: Bus, target: str, record: Quarantined) -> None:
    try:
        await bus.publish(target, record.SerializeToString())
    except AlreadyStored:
        return
