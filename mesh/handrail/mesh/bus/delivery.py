"""One message that a durable hands out, and the ways to settle it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

from handrail.mesh.bus.protocol import Message

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Place(NamedTuple):
    """What the reply subject of a delivery says: only the broker can give a message one. `time` in nanoseconds since
    1970.
    """

    stream: str
    durable: str
    delivered: int
    sequence: int
    nth: int
    time: int
    pending: int


def place(reply: str) -> Place | None:
    """Take the reply subject of a delivery apart; None where it is none.

    `$JS.ACK.<stream>.<durable>.<delivered>.<stream sequence>.<consumer sequence>.<time>.<pending>`, or with
    `<domain>.<account>` before the stream, and perhaps a random token behind.
    """
    tokens = reply.split(".")
    if tokens[:2] != ["$JS", "ACK"] or not 9 <= len(tokens) <= 12:
        return None
    stream, durable, *numbers = tokens[2:9] if len(tokens) == 9 else tokens[4:11]
    try:
        return Place(stream, durable, *map(int, numbers))
    except (TypeError, ValueError):
        return None


class Settling(Protocol):
    """Where the answers of deliveries go."""

    def reply(self, reply: str, body: bytes) -> None:
        """Answer a delivery."""

    def settled(self) -> None:
        """A delivery was settled: there is room for another."""


class Delivery:
    """One message handed out by a durable. Settle it once: `ack`, `nak` or `term`; a second time does nothing."""

    __slots__ = ("_place", "_pull", "_settled", "body", "delivered", "reply", "sequence", "subject")

    def __init__(self, pull: Settling, message: Message, place: Place) -> None:
        self._pull = pull
        self.reply = message.reply
        """Where the broker hears what became of it."""
        self._settled = False
        self._place = place
        self.subject = message.subject
        self.body = message.data
        self.delivered = place.delivered
        """How often it was handed out, 1 the first time."""
        self.sequence = place.sequence
        """Its position in the stream."""

    @property
    def time(self) -> datetime:
        """When the stream stored it, in UTC, cut to microseconds."""
        return _EPOCH + timedelta(microseconds=self._place.time // 1000)

    @property
    def pending(self) -> int:
        """Messages of the durable that were not handed out when this one was."""
        return self._place.pending

    @property
    def settled(self) -> bool:
        """Whether it was acked, handed back or given up."""
        return self._settled

    def ack(self) -> None:
        """Done: it is not handed out again."""
        self._settle(b"+ACK")

    def nak(self, delay: timedelta | None = None) -> None:
        """Not done: hand it out again, after `delay`."""
        if delay is None:
            self._settle(b"-NAK")
        else:
            self._settle(b"-NAK " + json.dumps({"delay": int(delay / timedelta(microseconds=1)) * 1000}).encode())

    def term(self, reason: str) -> None:
        """Never to be done: it is not handed out again, and the broker's advisory tells the reason."""
        self._settle(b"+TERM " + reason.encode())

    def in_progress(self) -> None:
        """Still at it: the durable's wait for the ack starts over."""
        if not self._settled:
            self._pull.reply(self.reply, b"+WPI")

    def _settle(self, body: bytes) -> None:
        if not self._settled:
            self._settled = True
            self._pull.reply(self.reply, body)
            self._pull.settled()
