"""Reads messages from an archive, by their sequences. Any number of readers, beside the writer.

The position of a message is its sequence: 8 bytes, which stay right when its segment is rewritten. Segments are found
by their names, frames by the footer. Nothing from a damaged frame or segment is served; the others are.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import BinaryIO, Generic, TypeVar

from handrail.visibility.archive.errors import Damaged, Finding, Kind, NoRecord
from handrail.visibility.archive.folder import Folder
from handrail.visibility.archive.frame import Frame, Record
from handrail.visibility.archive.ranges import contains
from handrail.visibility.archive.segment import Segment
from handrail.visibility.archive.segment_file import opened, place, read_frame, read_segment
from handrail.visibility.archive.verify import alone, between, chained

FRAMES = 64
"""How many inflated frames a reader keeps: 16 MB and what Python adds."""

_FOOTERS = 64

OnDamage = Callable[[Finding], None]

Found = TypeVar("Found")


class Reader:
    """Reads an archive. `frames` is the number of inflated frames that it keeps. Safe to call from several threads."""

    def __init__(self, folder: Folder, *, frames: int = FRAMES) -> None:
        self._folder = folder
        self._firsts: list[int] = []
        self._end = 0
        self._segments: _Recent[Segment] = _Recent(_FOOTERS)
        self._frames: _Recent[Frame] = _Recent(frames)

    def read(self, sequence: int) -> Record:
        """The message of a sequence. Raises NoRecord and Damaged."""
        return self.read_many([sequence])[0]

    def read_many(self, sequences: Sequence[int]) -> list[Record]:
        """The messages of sequences, in the order given; each frame is inflated once if they rise.

        Raises NoRecord if one is missing, and Damaged if one is in a damaged frame or segment.
        """
        found: list[Record] = []
        while len(found) < len(sequences):
            with self._holding(sequences[len(found)]) as (file, segment):
                for sequence in sequences[len(found) :]:
                    if not segment.first <= sequence <= segment.last:
                        break
                    found.append(self._record(file, segment, sequence))
        return found

    def iterate(self, *, after: int = 0, on_damage: OnDamage | None = None) -> Iterator[Record]:
        """Yields the sealed messages with a sequence beyond `after`, in order.

        Damage raises Damaged; with `on_damage` it is reported there, and what is damaged is left out.
        """
        firsts = self._firsts = self._folder.firsts()
        index = max(bisect_right(firsts, after + 1) - 1, 0)
        sealed = 0 if index == 0 else None
        for first in firsts[index:]:
            if sealed is not None and first != sealed + 1:
                _report(between(self._folder.file(first).name, sealed=sealed, first=first), on_damage)
            sealed = None
            try:
                with self._opened(first) as (file, segment):
                    yield from _records(file, segment, after, on_damage)
                    sealed = segment.last
            except Damaged as damaged:
                _report(damaged.finding, on_damage)

    @contextmanager
    def _holding(self, sequence: int) -> Iterator[tuple[BinaryIO, Segment]]:
        """The segment that has this sequence in its range. Raises NoRecord and Damaged."""
        if sequence >= self._end:
            self._firsts = self._folder.firsts()
            self._end = self._found_end(self._firsts)
        firsts = self._firsts
        index = bisect_right(firsts, sequence) - 1
        if not firsts or sequence < 1:
            raise NoRecord(sequence)
        if index < 0:
            raise Damaged(between(self._folder.file(firsts[0]).name, sealed=0, first=firsts[0]))
        with self._opened(firsts[index]) as (file, segment):
            if sequence <= segment.last:
                yield file, segment
                return
        if index + 1 == len(firsts):
            raise NoRecord(sequence)
        after = firsts[index + 1]
        raise Damaged(between(self._folder.file(after).name, sealed=segment.last, first=after))

    def _found_end(self, firsts: Sequence[int]) -> int:
        """The sequence behind the newest segment; the first one in it if it is damaged."""
        if not firsts:
            return 0
        try:
            with self._opened(firsts[-1]) as (_, segment):
                return segment.last + 1
        except Damaged:
            return firsts[-1]

    @contextmanager
    def _opened(self, first: int) -> Iterator[tuple[BinaryIO, Segment]]:
        """A segment, verified when it is opened first. Its file stays the same if it is rewritten meanwhile."""
        with opened(self._folder.file(first)) as file:
            found = os.fstat(file.fileno())
            identity = (first, found.st_ino, found.st_mtime_ns, found.st_size)
            yield file, self._segments.get(identity, lambda: self._verified(file, first))

    def _verified(self, file: BinaryIO, first: int) -> Segment:
        """Reads a segment's header and footer, and compares them with the segment before it, if that is not damaged."""
        segment = read_segment(file, self._folder.file(first).name)
        for finding in (*alone(segment), *self._chained(segment)):
            raise Damaged(finding)
        return segment

    def _chained(self, segment: Segment) -> Iterator[Finding]:
        index = bisect_left(self._firsts, segment.first)
        if index == 0:
            return chained(None, segment) if segment.first == 1 else iter(())
        path = self._folder.file(self._firsts[index - 1])
        try:
            with opened(path) as file:
                previous = read_segment(file, path.name)
        except Damaged:  # it is named where it is read
            return iter(())
        return chained(previous, segment) if previous.last + 1 == segment.first else iter(())

    def _record(self, file: BinaryIO, segment: Segment, sequence: int) -> Record:
        index = segment.frame_of(sequence)
        if index is None:
            raise NoRecord(
                sequence,
                erased=contains(segment.erased, sequence),
                absent=contains(segment.footer.absent, sequence),
            )
        frame = self._frames.get(segment.footer.frames[index].digest, lambda: read_frame(file, segment, index))
        record = frame.record(sequence)
        if record is None:
            text = f"sequence {sequence} is neither there nor listed as absent"
            raise Damaged(Finding(Kind.UNACCOUNTED, segment.file, place(segment, index), text))
        return record


class _Recent(Generic[Found]):
    """What was found lately, by what it depends on."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._found: OrderedDict[Hashable, Found] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, find: Callable[[], Found]) -> Found:
        """What was found under this key, or what `find` returns. An error is not kept."""
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        found = find()
        with self._lock:
            self._found[key] = found
            if len(self._found) > self._limit:
                self._found.popitem(last=False)
        return found


def _records(file: BinaryIO, segment: Segment, after: int, on_damage: OnDamage | None) -> Iterator[Record]:
    frames = segment.footer.frames
    for index in range(max(bisect_right(frames, after, key=lambda each: each.first) - 1, 0), len(frames)):
        try:
            frame = read_frame(file, segment, index)
        except Damaged as damaged:
            _report(damaged.finding, on_damage)
            continue
        yield from frame.records(after=after)


def _report(finding: Finding, on_damage: OnDamage | None) -> None:
    if on_damage is None:
        raise Damaged(finding)
    on_damage(finding)
