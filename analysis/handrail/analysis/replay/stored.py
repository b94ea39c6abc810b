"""A message as it is read from the stream, not decoded: plain values that can be handed to another process."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from handrail.mesh.wire import envelope
from handrail.mesh.wire.envelope import Recorded

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Stored(NamedTuple):
    """One message of the FLOW stream. `micros` is the stream's time, in microseconds since 1970."""

    subject: str
    body: bytes
    sequence: int
    micros: int

    @property
    def time(self) -> datetime:
        """The stream's time, in UTC."""
        return _EPOCH + timedelta(microseconds=self.micros)

    @classmethod
    def of(cls, subject: str, body: bytes, *, sequence: int, time: datetime) -> Stored:
        """A message of which the time is known as such."""
        return cls(subject, body, sequence, (time - _EPOCH) // timedelta(microseconds=1))


Messages = Sequence[Stored]
"""The messages of one flow, in stream order."""


def decode(stored: Stored) -> Recorded:
    """The message in its envelope; raises what `envelope.decode` raises."""
    return envelope.decode(stored.subject, stored.body, sequence=stored.sequence, time=stored.time)
