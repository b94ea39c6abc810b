"""Reads the broker's answers to publishes: acknowledgements and JetStream errors."""

from __future__ import annotations

import json
import re
from typing import Any

from handrail.mesh.errors import AlreadyStored, BrokerUnavailable, HandrailError, StreamFull, WrongSequence
from handrail.v1.error_reason_pb2 import ErrorReason

_LAST_SEQUENCE = re.compile(r"wrong last sequence: (\d+)")

# Codes of the JetStream API (nats-server, server/errors.json).
_TOO_MANY_REQUESTS = 10167
_UNAVAILABLE = 10008
NO_RESOURCES = (10023, 10028, 10047)
_MESSAGE_TOO_LARGE = 10054
_WRONG_SEQUENCE = (10071, 10164)
_STORE_FAILED = 10077


class NotNow(BrokerUnavailable):
    """The broker asks to retry later."""


def read_ack(subject: str, data: bytes) -> int | HandrailError:
    """Parses an acknowledgement: its sequence, or its error."""
    try:
        answer: dict[str, Any] = json.loads(data)
        error = answer.get("error")
        if error is None:
            return int(answer["seq"])
        code, text = int(error.get("err_code", 0)), str(error.get("description", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return HandrailError(
            ErrorReason.ERROR_REASON_INTERNAL,
            f"the broker's answer to a publish on {subject} can't be read: {data[:200]!r}",
        )
    return _publish_error(subject, str(answer.get("stream", "")), code, text)


def _publish_error(subject: str, stream: str, code: int, text: str) -> HandrailError:
    if code == _STORE_FAILED:
        # The code is the same for "already stored" and "full"; only the text differs.
        if "per subject" in text:
            return AlreadyStored(subject)
        return StreamFull(stream, text)
    if code in _WRONG_SEQUENCE:
        last = _LAST_SEQUENCE.search(text)
        return WrongSequence(subject, int(last[1]) if last else None)
    if code in NO_RESOURCES:
        return StreamFull(stream, text)
    if code == _MESSAGE_TOO_LARGE:
        return HandrailError(
            ErrorReason.ERROR_REASON_TOO_LARGE, f"stream {stream} refuses {subject}: {text}", subject=subject
        )
    if code in (_UNAVAILABLE, _TOO_MANY_REQUESTS):
        return NotNow(text)
    return HandrailError(
        ErrorReason.ERROR_REASON_INTERNAL,
        f"the broker refuses the publish on {subject}: {text} ({code})",
        subject=subject,
    )
