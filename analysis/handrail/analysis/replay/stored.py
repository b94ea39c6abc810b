"""A message read from the stream, not yet decoded: plain values that can be passed to another process."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from handrail.mesh.instants import from_micros, micros
from handrail.mesh.wire import envelope
from handrail.mesh.wire.envelope import Recorded


class Stored(NamedTuple):
    """One message of the FLOW stream. `micros` is the time of the stream, in microseconds since 1970."""

    subject: str
    body: bytes
    sequence: int
    micros: int

    @property
    def time(self) -> datetime:
        """The time of the stream, in UTC."""
        return from_micros(self.micros)

    @classmethod
    def of(cls, subject: str, body: bytes, *, sequence: int, time: datetime) -> Stored:
        """A message from its parts, with the time as a datetime."""
        return cls(subject, body, sequence, micros(time))


Messages = Sequence[Stored]
"""The messages of one flow, in stream order."""


def decode(stored: Stored) -> Recorded:
    """Decodes a message. Raises the errors of `envelope.decode`."""
    return envelope.decode(stored.subject, stored.body, sequence=stored.sequence, time=stored.time)
