"""Reads a snapshot's file without a broker: what a stream would have that is restored from it. Pure.

The file is S2, and what is in it is the broker's format NATSARC1 (nats-server 2.15): the state, the consumers, the
messages in stream order, and an empty entry at the end. Anything else counts as not whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from handrail.mesh.bus import RawMessage
from handrail.mesh.instants import from_nanoseconds
from handrail.mesh.streams.s2 import NotWhole, inflated

_MAGIC = b"NATSARC1"
_CONSUMER = b"consumers/"


class _Entry(NamedTuple):
    name: bytes
    nanoseconds: int
    sequence: int
    headers: bytes
    body: bytes


class SnapshotFile:
    """The file of a snapshot. `consumers` has the names of those that are packed, once the messages are read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.consumers: frozenset[str] = frozenset()

    def messages(self) -> Iterator[RawMessage]:
        """Yields the messages in stream order. Raises NotWhole if something is missing, and OSError."""
        consumers = set()
        for entry in self._entries():
            if entry.sequence:
                time = from_nanoseconds(entry.nanoseconds)
                subject = entry.name.decode(errors="replace")
                yield RawMessage(subject, entry.body, entry.sequence, time, entry.headers)
            elif entry.name.startswith(_CONSUMER):
                consumers.add(entry.name.removeprefix(_CONSUMER).decode(errors="replace"))
        self.consumers = frozenset(consumers)

    def _entries(self) -> Iterator[_Entry]:
        with self._file.open("rb") as packed:
            text = _Text(inflated(packed))
            if text.take(len(_MAGIC)) != _MAGIC:
                raise NotWhole("it does not begin as a snapshot of nats-server 2.15 does")
            while True:
                length, zigzag, sequence, headers, body = (text.number() for _ in range(5))
                if not length:
                    break
                time = zigzag >> 1 ^ -(zigzag & 1)
                yield _Entry(text.take(length), time, sequence, text.take(headers), text.take(body))
            if not text.is_at_end:
                raise NotWhole("something follows its end")


class _Text:
    """A text that comes in parts, read from its beginning. What it lacks raises NotWhole."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._part = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """The next bytes."""
        while len(self._part) - self._at < size:
            if not self._more():
                raise NotWhole("its end is missing")
        self._at += size
        return self._part[self._at - size : self._at]

    def number(self) -> int:
        """The next number, in groups of seven bits."""
        value = shift = 0
        while True:
            [group] = self.take(1)
            value |= (group & 0x7F) << shift
            if group < 0x80:
                return value
            shift += 7

    @property
    def is_at_end(self) -> bool:
        """Whether nothing follows."""
        return self._at == len(self._part) and not self._more()

    def _more(self) -> bool:
        part = next(self._parts, None)
        if part is None:
            return False
        self._part, self._at = self._part[self._at :] + part, 0
        return True
