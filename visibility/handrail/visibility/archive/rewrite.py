"""Erases messages from a sealed segment: writes it anew without them, and says so in its footer."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import BinaryIO

from handrail.visibility.archive.errors import NoRecord
from handrail.visibility.archive.folder import LockedFolder
from handrail.visibility.archive.frame import SALT_BYTES, Builder
from handrail.visibility.archive.ranges import ranges, sequences
from handrail.visibility.archive.segment import Footer, FrameEntry, Rewrite, Segment, digest, trailer
from handrail.visibility.archive.segment_file import opened, read_deflated, read_frame
from handrail.visibility.archive.verify import verify_segment
from handrail.visibility.archive.writer import Sealed, read_back


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A segment without what was erased from it. `replaced` is the digest of the version before."""

    sealed: Sealed
    replaced: str
    erased: tuple[int, ...]


def rewrite(folder: LockedFolder, first: int, drop: Collection[int]) -> Rewritten | None:
    """Erases messages from the segment that begins with sequence `first`; None if all of them are gone already.

    After a crash there is the former version, or the new one. Raises NoRecord if a sequence is not in the segment's
    range, Damaged if the segment is not what was sealed (then it stays as it is), and CannotWrite.
    """
    path = folder.file(first)
    with opened(path) as file:
        segment = verify_segment(file, path.name)
        for sequence in drop:
            if not segment.first <= sequence <= segment.last:
                raise NoRecord(sequence)
        frames, entries, erased = _without(file, segment, frozenset(drop))
    if not erased:
        return None
    before = segment.footer.rewrite
    footer = replace(
        segment.footer,
        count=segment.footer.count - len(erased),
        frames=tuple(entries),
        rewrite=Rewrite(
            replaces=(*(before.replaces if before is not None else ()), segment.digest),
            original=before.original if before is not None else segment.encoded[1].decode(),
            erased=ranges((*sequences(segment.erased), *erased)),
        ),
    )
    sealed = _replace(folder, segment, footer, frames)
    return Rewritten(sealed, segment.digest, tuple(erased))


def _without(file: BinaryIO, segment: Segment, drop: frozenset[int]) -> tuple[list[bytes], list[FrameEntry], list[int]]:
    """The frames and their entries without some messages, and the messages that were there. Other frames stay."""
    frames: list[bytes] = []
    entries: list[FrameEntry] = []
    erased: list[int] = []
    touched = {segment.frame_of(sequence) for sequence in drop}
    for index, entry in enumerate(segment.footer.frames):
        if index not in touched:
            frames.append(read_deflated(file, segment, index))
            entries.append(entry)
            continue
        rest = Builder()
        for record in read_frame(file, segment, index).records():
            if record.sequence in drop:
                erased.append(record.sequence)
            else:
                rest.add(record)
        frame = rest.deflate(os.urandom(SALT_BYTES))
        frames.append(frame)
        entries.append(FrameEntry(entry.first, rest.count, len(frame), sha256(frame).hexdigest()))
    return frames, entries, erased


def _replace(folder: LockedFolder, segment: Segment, footer: Footer, frames: list[bytes]) -> Sealed:
    header, end = segment.encoded[0], footer.encode()
    sealed = Sealed(segment.first, footer.last, footer.count, digest(header, end))
    folder.put(segment.first, (header, *frames, end, trailer(header, end)), lambda path: read_back(path, sealed))
    return sealed
