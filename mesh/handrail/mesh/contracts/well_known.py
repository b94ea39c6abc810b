"""Times and durations within messages: where they are, and whether they are any."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from handrail.mesh.errors import FieldViolation

_FIRST, _LAST = -62_135_596_800, 253_402_300_799
"""Seconds from 1970 to the first and the last second of the years 1 to 9999, all that a `Timestamp` can name."""

_LONGEST = 315_576_000_000
"""Seconds. All that a `Duration` can last: ten thousand years."""

_SECOND = 10**9


def within(message: Message, path: str = "") -> Iterator[tuple[str, Timestamp | Duration]]:
    """Every time and duration in a message, and its path. Maps hold none here, and are left out."""
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        parts = [(f"[{index}]", each) for index, each in enumerate(value)] if field.is_repeated else [("", value)]
        for index, part in parts:
            at = f"{path}.{field.name}{index}" if path else f"{field.name}{index}"
            if isinstance(part, Timestamp | Duration):
                yield at, part
            else:
                yield from within(part, at)


def violations(message: Message) -> Iterator[FieldViolation]:
    """The times and durations in a message that are none. protobuf lets them pass, and fails where they are computed
    with.
    """
    for path, part in within(message):
        if isinstance(part, Timestamp) and not (_FIRST <= part.seconds <= _LAST and 0 <= part.nanos < _SECOND):
            yield FieldViolation(path, "timestamp.valid", "is no time of the years 1 to 9999")
        elif isinstance(part, Duration) and not _lasts(part):
            yield FieldViolation(path, "duration.valid", "is no duration of up to 10,000 years")


def _lasts(duration: Duration) -> bool:
    one_sign = duration.seconds * duration.nanos >= 0
    return abs(duration.seconds) <= _LONGEST and abs(duration.nanos) < _SECOND and one_sign
