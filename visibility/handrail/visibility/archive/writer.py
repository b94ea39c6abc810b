"""Appends the messages of a stream to its archive.

    with LockedFolder(path) as folder:
        writer = Writer(folder, stream)
        for message in read_from(writer.next):      # the caller's: what is not sealed is read again after a crash
            writer.append(message)
            writer.seal_if_full()               # and `seal_if_due` from time to time

1. Give every sequence once, in order: a message by `append`, or its absence by `absent`. A gap is refused: it could be
   a message that got lost on its way. Say that one is absent only after the stream itself said so.
2. Remove from the stream only what is at or below `mark`.
3. Call from one thread at a time. Every call may wait for the disk: use a thread beside the event loop.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

from handrail.visibility.archive.errors import Damaged, Finding, Kind, OtherStream, OutOfOrder
from handrail.visibility.archive.folder import LockedFolder
from handrail.visibility.archive.frame import LEVEL, SALT_BYTES, Builder, Record
from handrail.visibility.archive.ranges import Range
from handrail.visibility.archive.segment import NO_LINK, Footer, FrameEntry, Header, Segment, Stream, trailer
from handrail.visibility.archive.segment import digest as digest_of
from handrail.visibility.archive.segment_file import opened
from handrail.visibility.archive.verify import verify, verify_segment

FRAME_BYTES = 256 << 10
"""How much a frame holds before it is compressed; measured in docs/archive.md."""

SEGMENT_BYTES = 64 << 20
"""The size of a segment. As much waits in memory until it is sealed."""

AGE = timedelta(hours=1)
"""How old a message may be until it is sealed, by the time at which the stream stored it."""

_ABSENT_BYTES = 32
"""What a range of absent sequences counts for a segment's size: it takes so much of the footer."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A segment that is whole on the disk: its range, the number of its messages, and its digest."""

    first: int
    last: int
    count: int
    digest: str


class Writer:
    """Appends to an archive, and seals what was appended by size and by age.

    Opening it verifies the footers of all segments and everything in the last one. Raises Damaged if one of them is not
    what was sealed, or if the archive ends before sequence `at_least`, which was sealed as the caller knows from
    elsewhere. Raises OtherStream if the archive belongs to another stream.
    """

    def __init__(
        self,
        folder: LockedFolder,
        stream: Stream,
        *,
        at_least: int = 0,
        segment_bytes: int = SEGMENT_BYTES,
        age: timedelta = AGE,
        frame_bytes: int = FRAME_BYTES,
        level: int = LEVEL,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._stream = stream
        self._segment_bytes = segment_bytes
        self._age = age.total_seconds()
        self._frame_bytes = frame_bytes
        self._level = level
        self._clock = clock
        newest = _newest(folder, at_least)
        if newest is not None and newest.header.stream != stream:
            raise OtherStream(folder.path, held=str(newest.header.stream), given=str(stream))
        self._mark = newest.last if newest is not None else 0
        self._link = newest.link if newest is not None else NO_LINK
        self._begin()

    @property
    def mark(self) -> int:
        """Every sequence up to this one is sealed, on the disk, and was read back; 0 at first."""
        return self._mark

    @property
    def next(self) -> int:
        """The sequence that has to come next."""
        return self._next

    def append(self, record: Record) -> None:
        """Takes the next message. It is durable once `mark` has reached it.

        Raises OutOfOrder, ValueError if a number or a length does not fit, and like `seal` if the segment before it is
        full and can't be sealed. Then the message was not taken.
        """
        self._make_way(record.sequence)
        self._frame.add(record)
        self._take(record.sequence, stored=record.time_ns / 1e9)
        if self._frame.size >= self._frame_bytes:
            self._end_frame()

    def absent(self, first: int, last: int) -> None:
        """Takes note that the stream does not have the next sequences, up to `last`. Raises like `append`."""
        if last < first:
            raise ValueError(f"there is no sequence from {first} to {last}")
        self._make_way(first)
        self._take(last, stored=float("inf"))
        if self._absent and self._absent[-1][1] == first - 1:
            self._absent[-1] = (self._absent[-1][0], last)
        else:
            self._absent.append((first, last))

    def seal_if_full(self) -> Sealed | None:
        """Seals if the segment has its size. Raises like `seal`."""
        return self.seal() if self._is_full() else None

    def seal_if_due(self) -> Sealed | None:
        """Seals if the segment is full, or its oldest message was stored longer ago than the age. Raises like `seal`.

        An old stream that is read from its beginning is always due: call it from time to time, not for each message.
        """
        return self.seal() if self._is_full() or self._clock() - self._since >= self._age else None

    def seal(self) -> Sealed | None:
        """Seals what was appended, and moves the mark; None if nothing was.

        Raises CannotWrite, or Damaged if the disk gives back something else than was written. Then the mark stays, and
        the next call tries again.
        """
        if self._next == self._mark + 1:
            return None
        self._end_frame()
        header = Header(self._stream, self._mark + 1, self._link).encode()
        count = sum(each.count for each in self._entries)
        footer = Footer(self._next - 1, count, tuple(self._absent), tuple(self._entries)).encode()
        sealed = Sealed(self._mark + 1, self._next - 1, count, digest_of(header, footer))
        parts = (header, *self._frames, footer, trailer(header, footer))
        self._folder.put(sealed.first, parts, lambda path: read_back(path, sealed))
        self._mark = sealed.last
        self._link = sealed.digest
        self._begin()
        return sealed

    def _begin(self) -> None:
        self._next = self._mark + 1
        self._since = float("inf")
        self._frame = Builder()
        self._frames: list[bytes] = []
        self._entries: list[FrameEntry] = []
        self._size = 0
        self._absent: list[Range] = []

    def _make_way(self, sequence: int) -> None:
        if sequence != self._next:
            raise OutOfOrder(expected=self._next, given=sequence)
        if self._is_full():
            self.seal()

    def _take(self, last: int, *, stored: float) -> None:
        """`stored` is a time in seconds since 1970. The broker's clock may be ahead: nothing is younger than now."""
        if self._next == self._mark + 1:
            self._since = self._clock()
        self._since = min(self._since, stored)
        self._next = last + 1

    def _is_full(self) -> bool:
        return self._size + self._frame.size + len(self._absent) * _ABSENT_BYTES >= self._segment_bytes

    def _end_frame(self) -> None:
        if self._frame.count:
            frame = self._frame.deflate(os.urandom(SALT_BYTES), level=self._level)
            self._frames.append(frame)
            self._entries.append(
                FrameEntry(self._frame.first, self._frame.count, len(frame), sha256(frame).hexdigest())
            )
            self._size += len(frame)
            self._frame = Builder()


def read_back(part: Path, sealed: Sealed) -> None:
    """Reads a segment that was just written. Raises Damaged unless it is whole, with this range, count and digest."""
    name = part.name.removesuffix(".part")
    with opened(part) as file:
        found = verify_segment(file, name)
    if Sealed(found.first, found.last, found.footer.count, found.digest) != sealed:
        raise Damaged(Finding(Kind.WRONG_DIGEST, name, "the file", "it was read back with another digest"))


def _newest(folder: LockedFolder, at_least: int) -> Segment | None:
    """The last segment, verified: all of it, and the footers of those before it. Raises Damaged."""
    for finding in verify(folder, at_least=at_least, full=False):
        raise Damaged(finding)
    for first in folder.firsts()[-1:]:
        with opened(folder.file(first)) as file:
            return verify_segment(file, folder.file(first).name)
    return None
