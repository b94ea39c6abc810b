"""AUDIT: what was archived before it was purged. Each segment is recorded once, under its digest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from handrail.mesh.bus import Bus
from handrail.mesh.errors import AlreadyStored, WrongSequence
from handrail.mesh.streams import AUDIT
from handrail.mesh.streams.stream_walk import oldest_first
from handrail.v1.audit_pb2 import SegmentArchived
from handrail.visibility.archive.errors import Damaged, Finding, Kind
from handrail.visibility.archive.folder import Folder
from handrail.visibility.archive.ranges import Range, first_uncovered
from handrail.visibility.archive.segment import Segment
from handrail.visibility.archive.segment_file import opened, read_segment

_SEGMENTS = "audit.segment.>"
_GAPS = "accepted-gaps"


class Audit:
    """Records the segments of an archive. `mark` is the sequence up to which all are whole and recorded.

    `archive` names the archive: the digest with which its first segment was sealed.
    """

    def __init__(self, bus: Bus, folder: Folder) -> None:
        self._bus = bus
        self._folder = folder
        self.archive = ""
        self._elsewhere: list[Range] | None = None
        self._known: set[str] = set()
        self.mark = 0
        self.problem = ""

    async def record(self) -> int:
        """Records the segments that are new, and returns the mark.

        It ends before a segment that lacks a sequence which no archive has: `problem` says which one. Raises Damaged
        if a segment that was recorded is not there any more, and the errors of `Bus.publish`.
        """
        if self._elsewhere is None:
            await self._compare()
        self.problem = ""
        for segment in await asyncio.to_thread(lambda: list(_segments(self._folder, after=self.mark))):
            lost = first_uncovered(segment.footer.absent, self._elsewhere or [])
            if lost is not None:
                self.problem = f"{segment.file}: sequence {lost} was never archived, and FLOW does not have it"
                break
            await self._put(segment)
            self.mark = segment.last
        return self.mark

    async def _put(self, segment: Segment) -> None:
        if segment.digest in self._known:
            return
        self.archive = self.archive or segment.link
        said = SegmentArchived(
            archive=self.archive,
            first=segment.first,
            last=segment.last,
            count=segment.footer.count,
            digest=segment.digest,
        )
        subject = f"audit.segment.{segment.first}.{segment.digest}"
        try:
            await self._bus.publish(subject, said.SerializeToString(), expected_sequence=0)
        except (AlreadyStored, WrongSequence):
            return

    async def _compare(self) -> None:
        """Learns what is recorded, and whether this archive still has all that was recorded of it."""
        own = await asyncio.to_thread(lambda: list(_segments(self._folder, after=0)))
        self.archive = own[0].link if own else ""
        digests = {digest for each in own for digest in _versions(each)}
        elsewhere: list[Range] = []
        async for message in oldest_first(self._bus, AUDIT, _SEGMENTS):
            said = SegmentArchived.FromString(message.body)
            if said.archive != self.archive:
                elsewhere.append((said.first, said.last))
                continue
            self._known.add(said.digest)
            if said.digest not in digests:
                text = f"AUDIT has sequences {said.first} to {said.last}, digest {said.digest}, and they are gone"
                raise Damaged(Finding(Kind.MISSING_SEGMENT, self._folder.path.name, "its segments", text))
        self._elsewhere = sorted([*elsewhere, *await asyncio.to_thread(_accepted, self._folder)])


def _accepted(folder: Folder) -> list[Range]:
    """The sequences that a person gave up, by a file beside the segments. Raises Damaged."""
    path = folder.path / _GAPS
    try:
        return [
            (int(first), int(last)) for first, last in map(str.split, path.read_text(encoding="ascii").splitlines())
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        text = f"each line should have the first and the last sequence of a gap ({error})"
        raise Damaged(Finding(Kind.UNREADABLE, path.name, "the file", text)) from error


def _segments(folder: Folder, *, after: int) -> Iterator[Segment]:
    """The segments behind a sequence, by their footers. Raises Damaged."""
    for first in folder.firsts():
        if first > after:
            with opened(folder.file(first)) as file:
                yield read_segment(file, folder.file(first).name)


def _versions(segment: Segment) -> Sequence[str]:
    rewrite = segment.footer.rewrite
    return (segment.digest, segment.link, *(rewrite.replaces if rewrite is not None else ()))
