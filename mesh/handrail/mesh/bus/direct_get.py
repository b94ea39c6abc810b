"""Direct reads from a stream: any replica answers, and one request returns many messages.

nats-py reads one message per request; a flow would take one round trip per message.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from handrail.mesh.bus.connection import Connection
from handrail.mesh.bus.protocol import Message, description, parse_headers, status
from handrail.mesh.errors import BrokerUnavailable, HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason

READ_TIMEOUT = timedelta(seconds=10)

SUBJECT_LIMIT = 1024
"""The number of subjects that one read with `multi_last` may match (nats-server, maxAllowedResponses)."""

_SILENCE = 2.0
_BACKOFF = 0.1

# The broker appends its own headers, in this order, to the headers that a message was stored with. Before that it cuts
# off what it takes for their final empty line (nats-server, getDirectRequest and genHeader; the same on 2.15.1 for all
# kinds of reads). So the last headers are always the broker's, whatever the publisher sent before them. The broker's
# status replies to a read (204, 404, 413, …) never end like this.
_PLACE = re.compile(
    rb"Nats-Stream: [^\r\n]*\r\nNats-Subject: ([^\r\n]*)\r\nNats-Sequence: (\d+)\r\nNats-Time-Stamp: ([^\r\n]*)\r\n"
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


async def read(
    connection: Connection, stream: str, request: Mapping[str, Any], *, timeout: timedelta = READ_TIMEOUT
) -> Page:
    """One direct read that may return many messages. Retries without an answer, until `timeout`."""
    body = json.dumps(request).encode()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout.total_seconds()
    problem = "no answer"
    while (left := deadline - loop.time()) > 0:
        batch = _Batch(f"$JS.API.DIRECT.GET.{stream}", many="batch" in request or "multi_last" in request)
        reply = connection.inbox.expect(batch)
        try:
            async with asyncio.timeout(min(left, _SILENCE)):
                await connection.ready()
                connection.send(batch.subject, body, reply=reply)
                ended = await batch.ended
                if ended is None:
                    return Page(tuple(batch.messages))
        except TimeoutError:
            problem = "no answer" if connection.connected else connection.why_not_connected
            continue
        finally:
            connection.inbox.forget(reply)
        match status(ended):
            case "204" | "404":
                return batch.page(ended)
            case "413":
                raise TooManySubjects(stream, request.get("multi_last", ()))
            case "503":
                problem = "no server answers for the stream"
                await asyncio.sleep(min(_BACKOFF, max(0.0, deadline - loop.time())))
            case other:
                raise HandrailError(
                    ErrorReason.ERROR_REASON_INTERNAL,
                    f"the broker refuses to read from {stream}: {other} {description(ended)}",
                )
    raise BrokerUnavailable(f"can't read from stream {stream} within {timeout.total_seconds():g} s: {problem}")


class _Batch:
    """Collects the messages of one read, up to the final one."""

    def __init__(self, subject: str, *, many: bool) -> None:
        self.subject = subject
        self.messages: list[RawMessage] = []
        self.ended: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
        """The broker's final status reply; None if a single message was requested and arrived."""
        self._many = many

    def answered(self, message: Message) -> None:
        if self.ended.done():
            return
        stored = read_stored(message.block, message.data)
        if stored is None:
            self.ended.set_result(message)
            return
        self.messages.append(stored)
        if not self._many:
            self.ended.set_result(None)

    def refused(self, error: HandrailError) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)

    def page(self, ended: Message) -> Page:
        headers = parse_headers(ended.block)
        return Page(
            tuple(self.messages),
            up_to_sequence=int(headers.get("Nats-UpTo-Sequence", 0)),
            pending=int(headers.get("Nats-Num-Pending", 0)),
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
    return RawMessage(
        subject=place[1].decode(errors="replace"),
        body=body,
        sequence=int(place[2]),
        time=parse_time(place[3].decode()),
        block=block[:begin],
    )
