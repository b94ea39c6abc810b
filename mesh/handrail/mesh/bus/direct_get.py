"""What direct reads return (see `direct_reads`), and how it is parsed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from handrail.mesh.bus.protocol import Message, parse_headers
from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason

READ_TIMEOUT = timedelta(seconds=10)

SUBJECT_LIMIT = 1024
"""The number of subjects that one read with `multi_last` may match (nats-server, maxAllowedResponses)."""

# The broker appends its own headers, in this order, to the headers that a message was stored with. Before that it cuts
# off what it takes for their final empty line (nats-server, getDirectRequest and genHeader; the same on 2.15.1 for all
# kinds of reads). So the last headers are always the broker's, whatever the publisher sent before them. The broker's
# status replies to a read (204, 404, 413, …) never end like this.
_PLACE = re.compile(
    rb"Nats-Stream: [^\r]*\r\nNats-Subject: ([^\r]*)\r\nNats-Sequence: (\d+)\r\nNats-Time-Stamp: ([^\r]*)\r\n"
    rb"(?:Nats-Num-Pending: \d+\r\nNats-Last-Sequence: \d+\r\n)?\r\n"
)
_PLACE_BEGINS = b"Nats-Stream: "
"""Subjects contain no blanks, so the last occurrence in a block is the broker's."""


class RawMessage(NamedTuple):
    """A message as stored in the stream. The stream sets `time`: UTC, truncated to microseconds.

    `block` holds the headers that it was stored with. Its publisher chose them: do not trust them.
    """

    subject: str
    body: bytes
    sequence: int
    time: datetime
    block: bytes = b""

    @property
    def headers(self) -> dict[str, str]:
        """The stored headers, parsed."""
        return parse_headers(self.block)


@dataclass(frozen=True, slots=True)
class Page:
    """The result of one read, in stream order.

    `up_to_sequence` is the last sequence known to the replica that answered; 0 if it found nothing and did not report
    it. `pending` is the number of further matches after the last message of a forward read.
    """

    messages: tuple[RawMessage, ...] = ()
    up_to_sequence: int = 0
    pending: int = 0


class TooManySubjects(HandrailError):
    """More than SUBJECT_LIMIT subjects match; read them in parts."""

    def __init__(self, stream: str, filters: Sequence[str]) -> None:
        super().__init__(
            ErrorReason.ERROR_REASON_INTERNAL,
            f"more than {SUBJECT_LIMIT} subjects of {stream} match {', '.join(filters[:3])}",
        )


def parse_time(stamp: str) -> datetime:
    """Parses a time of the broker (RFC 3339, up to nanoseconds): UTC, truncated to microseconds as in deliveries."""
    return datetime.fromisoformat(stamp).astimezone(UTC)


def read_stored(block: bytes, body: bytes) -> RawMessage | None:
    """The stored message in a reply to a direct read; None if the reply is a status of the broker."""
    begin = block.rfind(_PLACE_BEGINS)
    place = _PLACE.fullmatch(block, begin) if begin >= 0 else None
    if place is None:
        return None
    subject, sequence, time = place.groups()
    return RawMessage(subject.decode(errors="replace"), body, int(sequence), parse_time(time.decode()), block[:begin])


def read_end(messages: Sequence[RawMessage], end: Message) -> Page:
    """The result of a read of these messages, with what the broker reports at its end."""
    headers = parse_headers(end.block)
    return Page(
        tuple(messages),
        up_to_sequence=int(headers.get("Nats-UpTo-Sequence", 0)),
        pending=int(headers.get("Nats-Num-Pending", 0)),
    )
