"""Verifies an archive: each segment by itself, and each with the one before it.

    for finding in verify(Folder(path), at_least=1_000_000):
        print(clean(str(finding)))

The end of the archive is not known to the archive itself: name the last sequence that was sealed, as AUDIT has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from handrail.visibility.archive.errors import Damaged, Finding, Kind
from handrail.visibility.archive.folder import Folder
from handrail.visibility.archive.frame import Frame
from handrail.visibility.archive.ranges import contains, length
from handrail.visibility.archive.segment import NO_LINK, FrameEntry, Segment, original
from handrail.visibility.archive.segment_file import opened, place, read_frame, read_segment


def verify(folder: Folder, *, at_least: int = 0, full: bool = True) -> Iterator[Finding]:
    """Yields what is wrong with an archive; nothing if it is whole up to sequence `at_least`.

    With `full`, it reads and inflates everything; otherwise headers and footers only. Raises OSError if the folder
    can't be listed.
    """
    previous: Segment | None = None
    sealed, is_known = 0, True
    for first in folder.firsts():
        name = folder.file(first).name
        if is_known and first != sealed + 1:
            yield between(name, sealed=sealed, first=first)
        try:
            with opened(folder.file(first)) as file:
                segment = read_segment(file, name)
                yield from alone(segment)
                yield from _frames(file, segment) if full else ()
        except Damaged as damaged:
            yield damaged.finding
            previous, is_known = None, False
            continue
        if is_known and first == sealed + 1:
            yield from chained(previous, segment)
        previous, sealed, is_known = segment, segment.last, True
    if is_known and sealed < at_least:
        text = f"the archive ends with sequence {sealed}, but {at_least} was sealed"
        yield Finding(Kind.MISSING_SEGMENT, folder.path.name, "its end", text)


def verify_segment(file: BinaryIO, name: str) -> Segment:
    """Reads a segment, all of it. Raises Damaged with the first thing that is wrong."""
    segment = read_segment(file, name)
    for finding in (*alone(segment), *_frames(file, segment)):
        raise Damaged(finding)
    return segment


def chained(previous: Segment | None, segment: Segment) -> Iterator[Finding]:
    """What is wrong between a segment and the one before it; None before the first segment of an archive."""
    if previous is not None and previous.header.stream != segment.header.stream:
        text = f"it holds {segment.header.stream}, and {previous.file} holds {previous.header.stream}"
        yield Finding(Kind.OTHER_STREAM, segment.file, "header", text)
    if segment.header.previous != (previous.link if previous is not None else NO_LINK):
        before = f"the segment after {previous.file}" if previous is not None else "the first segment"
        yield Finding(Kind.WRONG_CHAIN, segment.file, "header", f"it was not sealed as {before}")


def between(name: str, *, sealed: int, first: int) -> Finding:
    """The finding for a segment that begins with `first`, where the one before it ends with `sealed`."""
    if first <= sealed:
        return Finding(Kind.OVERLAP, name, "name", f"the segment before it ends with sequence {sealed}")
    return Finding(Kind.MISSING_SEGMENT, name, "name", f"before it, sequences {sealed + 1} to {first - 1} are missing")


def alone(segment: Segment) -> Iterator[Finding]:
    """What is wrong with the header and footer of a segment: the range is not accounted for, or a rewrite is wrong."""
    complaint = segment.complaint()
    if complaint:
        yield Finding(Kind.UNACCOUNTED, segment.file, "footer", complaint)
    if segment.footer.rewrite is not None:
        yield from _rewritten(segment)


def _rewritten(segment: Segment) -> Iterator[Finding]:
    """What a rewrite changed beside removing what it lists as erased."""
    sealed, rewrite = original(segment), segment.footer.rewrite
    wrong = [
        text
        for text, holds in (
            ("its first version is not the one that it names", rewrite and rewrite.replaces[:1] == (segment.link,)),
            ("its range has changed", sealed.last == segment.last),
            ("what was absent has changed", sealed.absent == segment.footer.absent),
            ("there is another number of frames", len(sealed.frames) == len(segment.footer.frames)),
            ("its first version was rewritten, too", sealed.rewrite is None),
        )
        if not holds
    ]
    frames = zip(sealed.frames, segment.footer.frames, strict=False)
    wrong += [
        f"the frame from sequence {new.first} on has changed by more than was erased"
        for index, (old, new) in enumerate(frames)
        if not _is_only_erased(segment, index, old, new)
    ]
    for text in wrong:
        yield Finding(Kind.WRONG_CHAIN, segment.file, "footer", text)


def _is_only_erased(segment: Segment, index: int, old: FrameEntry, new: FrameEntry) -> bool:
    if old == new:
        return True
    first, end = _reach(segment, index)
    erased = length((max(a, first), min(b, end)) for a, b in segment.erased if a <= end and b >= first)
    return erased > 0 and new.first == old.first and new.count == old.count - erased


def _frames(file: BinaryIO, segment: Segment) -> Iterator[Finding]:
    for index in range(len(segment.footer.frames)):
        try:
            complaint = _complaint(segment, index, read_frame(file, segment, index))
        except Damaged as damaged:
            yield damaged.finding
            continue
        if complaint:
            yield Finding(Kind.UNACCOUNTED, segment.file, place(segment, index), complaint)


def _complaint(segment: Segment, index: int, frame: Frame) -> str:
    """Why a frame does not have what the footer says; or empty."""
    found = frame.sequences()
    first, end = _reach(segment, index)
    if len(found) != segment.footer.frames[index].count:
        return f"it has {len(found)} messages, and the footer says {segment.footer.frames[index].count}"
    if found != sorted(set(found)) or (found and not first <= found[0] <= found[-1] <= end):
        return "its messages are not in order, or belong to another frame"
    listed = sorted((*segment.footer.absent, *segment.erased))
    both = next((each for each in found if contains(listed, each)), None)
    return "" if both is None else f"sequence {both} is there although it is listed as absent or erased"


def _reach(segment: Segment, index: int) -> tuple[int, int]:
    """The sequences that a frame may have."""
    frames = segment.footer.frames
    return frames[index].first, frames[index + 1].first - 1 if index + 1 < len(frames) else segment.last
