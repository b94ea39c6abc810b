"""Timestamps and durations within messages: where they are, and whether they are valid."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from handrail.mesh.errors import FieldViolation

_FIRST, _LAST = -62_135_596_800, 253_402_300_799
"""Seconds from 1970 to the first and the last second of the years 1 to 9999, the valid range of a `Timestamp`."""

_LONGEST = 315_576_000_000
"""Seconds. The longest valid `Duration`: ten thousand years."""

_SECOND = 10**9


def within(message: Message, path: str = "") -> Iterator[tuple[str, Timestamp | Duration]]:
    """All timestamps and durations in a message, with their paths. Skips maps."""
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
    """The invalid timestamps and durations in a message. Protobuf accepts them, and fails later in computations with
    them.
    """
    for path, part in within(message):
        if isinstance(part, Timestamp) and not (_FIRST <= part.seconds <= _LAST and 0 <= part.nanos < _SECOND):
            yield FieldViolation(path, "timestamp.valid", "is not a time of the years 1 to 9999")
        elif isinstance(part, Duration) and not _lasts(part):
            yield FieldViolation(path, "duration.valid", "is not a duration of up to 10,000 years")


def _lasts(duration: Duration) -> bool:
    one_sign = duration.seconds * duration.nanos >= 0
    return abs(duration.seconds) <= _LONGEST and abs(duration.nanos) < _SECOND and one_sign
