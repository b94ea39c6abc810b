"""The quarantine, Handrail's dead-letter queue: keeps messages that break their contract, with their bytes."""

from __future__ import annotations

import logging

from handrail.mesh.bus import Bus
from handrail.mesh.errors import AlreadyStored, HandrailError
from handrail.mesh.wire import ids
from handrail.mesh.wire.subjects import IDENTIFIER, quarantine_subject
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
    """Puts a message into quarantine, with its bytes and the reason, reported by `reporter`.

    It is stored under its own event id. If that id is invalid or taken, it is stored under an id derived from subject
    and bytes. So two messages with one id are both kept, and repeats of one message are stored twice at most.
    """
    tokens = (subject.split(".", 6) + [""] * 6)[:6]
    record = Quarantined(
        reason=reason, detail=detail, subject=subject, stream_sequence=sequence, body=body, reporter=reporter
    )
    log.warning(
        "flow %s: message %d is quarantined (%s): %s", tokens[2][:32], sequence, ErrorReason.Name(reason), detail
    )
    own_ids = [tokens[5]] if IDENTIFIER.fullmatch(tokens[5]) else []
    for event_id in (*own_ids, ids.quarantine_id(subject, body)):
        if await _store(bus, quarantine_subject(tokens[1], tokens[2], reporter, event_id), record):
            return


async def _store(bus: Bus, target: str, record: Quarantined) -> bool:
    """Stores a record, unless the subject is taken. Returns whether it stored it."""
    try:
        await bus.publish(target, record.SerializeToString())
    except AlreadyStored:
        return False
    except HandrailError as error:
        if error.reason != ErrorReason.ERROR_REASON_TOO_LARGE or not record.body:
            raise
        # With reason and subject added, a message of the largest size no longer fits. The FLOW stream still has its
        # bytes.
        record.body = b""
        record.detail += f" (its bytes are in the FLOW stream at {record.stream_sequence})"
        return await _store(bus, target, record)
    return True
