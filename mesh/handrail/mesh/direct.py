"""Reading messages straight from a stream, from whichever replica answers, many with one request.

nats-py reads one message per request; a flow would take as many round trips as it has messages.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from nats.aio.msg import Msg

from handrail.mesh.connection import Connection
from handrail.mesh.errors import BrokerUnavailable, HandrailError
from handrail.mesh.inbox import status
from handrail.v1.error_reason_pb2 import ErrorReason

READ_TIMEOUT = timedelta(seconds=10)

SUBJECT_LIMIT = 1024
"""Subjects that one read with `multi_last` may match (nats-server, maxAllowedResponses)."""

_SILENCE = 2.0
_BACKOFF = 0.1
_END_OF_BATCH = "204"
_NOT_FOUND = "404"
_TOO_MANY = "413"


@dataclass(frozen=True, slots=True)
class RawMessage:
    """A message as the stream holds it. `time` is the stream's, in UTC, cut to microseconds."""

    subject: str
    body: bytes
    sequence: int
    time: datetime
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """What one read gave, in stream order.

    `up_to_sequence` is the last sequence that the replica which answered knew; 0 where it found nothing and did not
    say. `pending` is the number of further matches behind the last message of a forward read.
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
    """One direct read that may give many messages. Asks again while nobody answers, until `timeout`."""
    body = json.dumps(request).encode()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout.total_seconds()
    problem = "no answer"
    while (left := deadline - loop.time()) > 0:
        batch = _Batch(f"$JS.API.DIRECT.GET.{stream}")
        reply = connection.inbox.expect(batch)
        try:
            async with asyncio.timeout(min(left, _SILENCE)):
                await connection.ready()
                connection.send(batch.subject, body, reply=reply)
                ended = await batch.ended
        except TimeoutError:
            problem = "no answer" if connection.connected else connection.why_not_connected
            continue
        finally:
            connection.inbox.forget(reply)
        match status(ended):
            case "" | "204" | "404":
                return batch.page(ended)
            case "413":
                raise TooManySubjects(stream, request.get("multi_last", ()))
            case "503":
                problem = "nobody answers for the stream"
                await asyncio.sleep(min(_BACKOFF, max(0.0, deadline - loop.time())))
            case other:
                raise HandrailError(
                    ErrorReason.ERROR_REASON_INTERNAL,
                    f"the broker refuses to read from {stream}: {other} {(ended.headers or {}).get('Description', '')}",
                )
    raise BrokerUnavailable(f"can't read from stream {stream} within {timeout.total_seconds():g} s: {problem}")


class _Batch:
    """Messages of one read until the one that ends it."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.messages: list[RawMessage] = []
        self.ended: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

    def answered(self, message: Msg) -> None:
        if self.ended.done():
            return
        headers = message.headers or {}
        if "Status" in headers:
            self.ended.set_result(message)
            return
        try:
            self.messages.append(_read_message(message.data, headers))
        except (KeyError, ValueError):
            self.ended.set_exception(
                HandrailError(ErrorReason.ERROR_REASON_INTERNAL, f"a reply to {self.subject} lacks its headers")
            )
            return
        if "Nats-Num-Pending" not in headers:
            # A read of a single message has no end of batch.
            self.ended.set_result(message)

    def refused(self, error: HandrailError) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)

    def page(self, ended: Msg) -> Page:
        headers = ended.headers or {}
        return Page(
            tuple(self.messages),
            up_to_sequence=int(headers.get("Nats-UpTo-Sequence", 0)),
            pending=int(headers.get("Nats-Num-Pending", 0)),
        )


def parse_time(stamp: str) -> datetime:
    """A time of the broker's (RFC 3339, up to nanoseconds) in UTC, cut to microseconds as deliveries have it."""
    return datetime.fromisoformat(stamp).astimezone(UTC)


def _read_message(body: bytes, headers: Mapping[str, str]) -> RawMessage:
    return RawMessage(
        subject=headers["Nats-Subject"],
        body=body,
        sequence=int(headers["Nats-Sequence"]),
        time=parse_time(headers["Nats-Time-Stamp"]),
        headers=headers,
    )
