"""A frame: some hundred messages, compressed together. It can be read without the rest of its segment. Pure.

Inflated, it is a salt, the number of messages, one row a message, and then subject, headers and body of each message
(docs/archive.md). Rows have fixed lengths and say where their message ends: so one is found among hundreds without
reading the others. zstd takes out most of what varints would save.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

import zstandard

SALT_BYTES = 16
"""A frame begins with as many random bytes. Once they are erased with a message, the frame's old digest tells nobody
whether a guess of that message is right.
"""

LEVEL = 1
"""The level of zstd; measured in docs/archive.md."""

_COUNT = struct.Struct("<I")
_ROW = struct.Struct("<QqIII")
_ROWS_BEGIN = SALT_BYTES + _COUNT.size


class Record(NamedTuple):
    """One message as the stream stores it. `time_ns` is the stream's time in nanoseconds since 1970, UTC.

    `headers` is the raw block of headers, empty without any. Subject, headers and body are a stranger's.
    """

    sequence: int
    subject: str
    time_ns: int
    headers: bytes
    body: bytes


class Frame:
    """An inflated frame. It looks up a message without reading the others."""

    __slots__ = ("_begin", "_inflated", "count")

    def __init__(self, inflated: bytes) -> None:
        """Raises ValueError if the frame is not as long as it says."""
        if len(inflated) < _ROWS_BEGIN:
            raise ValueError("the frame is too short")
        self.count: int = _COUNT.unpack_from(inflated, SALT_BYTES)[0]
        self._begin: int = _ROWS_BEGIN + self.count * _ROW.size
        self._inflated = inflated
        if self._begin > len(inflated) or self._end(self.count - 1) != len(inflated):
            raise ValueError("the frame is not as long as it says")

    def sequences(self) -> list[int]:
        """The sequences of its messages."""
        return [row[0] for row in _ROW.iter_unpack(self._inflated[_ROWS_BEGIN : self._begin])]

    def record(self, sequence: int) -> Record | None:
        """The message of a sequence, or None."""
        index = self._index(sequence)
        found = self._at(index) if index < self.count else None
        return found if found is not None and found.sequence == sequence else None

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """The messages with a sequence beyond `after`, in order."""
        return map(self._at, range(self._index(after + 1), self.count))

    def _index(self, sequence: int) -> int:
        """The index of the first message from this sequence on."""
        return bisect_left(range(self.count), sequence, key=lambda index: self._row(index)[0])

    def _row(self, index: int) -> tuple[int, int, int, int, int]:
        found: tuple[int, int, int, int, int] = _ROW.unpack_from(self._inflated, _ROWS_BEGIN + index * _ROW.size)
        return found

    def _end(self, index: int) -> int:
        return self._begin + (self._row(index)[4] if index >= 0 else 0)

    def _at(self, index: int) -> Record:
        sequence, time_ns, subject, headers, end = self._row(index)
        begin = self._end(index - 1)
        middle = begin + subject
        return Record(
            sequence,
            self._inflated[begin:middle].decode(errors="surrogateescape"),
            time_ns,
            self._inflated[middle : middle + headers],
            self._inflated[middle + headers : self._begin + end],
        )


class Builder:
    """Collects the messages of one frame. `first` is the first one's sequence."""

    def __init__(self) -> None:
        self.first = 0
        self.count = 0
        self._end = 0
        self._rows: list[bytes] = []
        self._texts: list[bytes] = []

    @property
    def size(self) -> int:
        """The bytes before compression."""
        return _ROWS_BEGIN + len(self._rows) * _ROW.size + self._end

    def add(self, record: Record) -> None:
        """Adds the next message. Raises ValueError if a number or a length does not fit into its field."""
        sequence, name, time_ns, headers, body = record
        subject = name.encode(errors="surrogateescape")
        end = self._end + len(subject) + len(headers) + len(body)
        try:
            self._rows.append(_ROW.pack(sequence, time_ns, len(subject), len(headers), end))
        except struct.error as error:
            raise ValueError(f"message {sequence} does not fit into a frame: {error}") from error
        self._texts += (subject, headers, body)
        self.first = self.first or sequence
        self.count += 1
        self._end = end

    def deflate(self, salt: bytes, *, level: int = LEVEL) -> bytes:
        """Compresses the frame. `salt` is `SALT_BYTES` random bytes, never used before."""
        if len(salt) != SALT_BYTES:
            raise ValueError(f"a salt has {SALT_BYTES} bytes")
        inflated = b"".join((salt, _COUNT.pack(self.count), *self._rows, *self._texts))
        return zstandard.ZstdCompressor(level=level, write_checksum=True).compress(inflated)


def inflate(frame: bytes) -> Frame:
    """Reads a frame. Raises ValueError if it is not one."""
    try:
        return Frame(zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False))
    except zstandard.ZstdError as error:
        raise ValueError(f"zstd can't inflate the frame: {error}") from error
