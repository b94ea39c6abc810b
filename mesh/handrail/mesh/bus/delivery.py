"""One message delivered by a durable, and the ways to settle it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from handrail.mesh.bus.protocol import Message
from handrail.mesh.instants import from_nanoseconds, in_nanoseconds


class Place(NamedTuple):
    """The position of a delivery, from its reply subject, which only the broker can set. `time` is in nanoseconds
    since 1970.
    """

    stream: str
    durable: str
    delivered: int
    sequence: int
    nth: int
    time: int
    pending: int

    @property
    def stored_at(self) -> datetime:
        """When the stream stored the message, in UTC, truncated to microseconds."""
        return from_nanoseconds(self.time)


def place(reply: str) -> Place | None:
    """Parses the reply subject of a delivery. Returns None for any other subject.

    The form is `$JS.ACK.<stream>.<durable>.<delivered>.<stream sequence>.<consumer sequence>.<time>.<pending>`,
    optionally with `<domain>.<account>` before the stream and a random token at the end.
    """
    tokens = reply.split(".")
    if tokens[0] != "$JS" or tokens[1] != "ACK" or len(tokens) not in (9, 11, 12):
        return None
    if len(tokens) > 9:
        del tokens[2:4]
    try:
        # Each delivery pays for this line: it is written out.
        return Place(
            tokens[2], tokens[3], int(tokens[4]), int(tokens[5]), int(tokens[6]), int(tokens[7]), int(tokens[8])
        )
    except ValueError:
        return None


class Settling(Protocol):
    """Receives the answers to deliveries."""

    def reply(self, reply: str, body: bytes) -> None:
        """Sends the answer to a delivery."""

    def settled(self) -> None:
        """A delivery was settled, or its receiver makes room for another."""


class Delivery:
    """One message delivered by a durable. Settle it once, with `ack`, `nak` or `term`; further calls do nothing."""

    __slots__ = (
        "_counts",
        "_nanoseconds",
        "_pending",
        "_pull",
        "_settled",
        "block",
        "body",
        "delivered",
        "reply",
        "sequence",
        "subject",
    )

    def __init__(self, pull: Settling, message: Message, place: Place) -> None:
        self._pull = pull
        self.reply = message.reply
        """The subject for the answer to the broker."""
        self._settled = False
        self._counts = True
        self._nanoseconds = place.time
        self._pending = place.pending
        self.subject = message.subject
        self.body = message.data
        self.block = message.block
        """The headers that it was stored with, as bytes. Its publisher chose them: do not trust them."""
        self.delivered = place.delivered
        """How often it has been delivered, 1 the first time."""
        self.sequence = place.sequence
        """Its position in the stream."""

    @property
    def time(self) -> datetime:
        """When the stream stored it, in UTC, truncated to microseconds."""
        return from_nanoseconds(self._nanoseconds)

    @property
    def pending(self) -> int:
        """The number of messages still undelivered in the durable when this one was delivered."""
        return self._pending

    @property
    def settled(self) -> bool:
        """Whether `ack`, `nak` or `term` was called."""
        return self._settled

    def ack(self) -> None:
        """Done: the broker does not deliver it again."""
        self._settle(b"+ACK")

    def nak(self, delay: timedelta | None = None) -> None:
        """Not done: the broker delivers it again, after `delay`."""
        if delay is None:
            self._settle(b"-NAK")
        else:
            self._settle(b"-NAK " + json.dumps({"delay": in_nanoseconds(delay)}).encode())

    def term(self, reason: str) -> None:
        """Given up: the broker does not deliver it again, and publishes an advisory with the reason."""
        self._settle(b"+TERM " + reason.encode())

    def in_progress(self) -> None:
        """Still in progress: restarts the ack wait of the durable."""
        if not self._settled:
            self._pull.reply(self.reply, b"+WPI")

    def make_room(self) -> None:
        """Handled but for its answer: it no longer counts as in progress, and the pull may ask for another message."""
        if self._counts:
            self._counts = False
            self._pull.settled()

    def _settle(self, body: bytes) -> None:
        if not self._settled:
            self._settled = True
            self._pull.reply(self.reply, body)
            self.make_room()
