"""Reads segments from files, and nothing from a damaged part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from handrail.visibility.archive.errors import Damaged, Finding, Kind
from handrail.visibility.archive.frame import Frame, inflate
from handrail.visibility.archive.segment import (
    PREFIX_BYTES,
    TRAILER_BYTES,
    Segment,
    footer_size,
    header_size,
    parse,
)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Opens the file of a segment. Raises Damaged."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise _unreadable(path.name, "the file", error) from error
    with file:
        yield file


def read_segment(file: BinaryIO, name: str) -> Segment:
    """Reads header and footer, and compares them with their digest. Raises Damaged.

    `name` is the file's, without `.part`.
    """
    try:
        size = file.seek(0, 2)
    except OSError as error:
        raise _unreadable(name, "the file", error) from error
    end = _read(file, max(size - TRAILER_BYTES, 0), TRAILER_BYTES, name=name)
    footer_begins = size - TRAILER_BYTES - footer_size(end, file=name)
    header_ends = header_size(_read(file, 0, PREFIX_BYTES, name=name), file=name)
    if header_ends > footer_begins:
        raise Damaged(Finding(Kind.MALFORMED, name, "header or trailer", "it is shorter than its parts"))
    header = _read(file, 0, header_ends, name=name)
    footer = _read(file, footer_begins, size - TRAILER_BYTES - footer_begins, name=name)
    segment = parse(header, footer, end, file=name)
    if segment.offsets[-1] != footer_begins:
        raise Damaged(Finding(Kind.MALFORMED, name, "frames", "there are more bytes than frames, or fewer"))
    if name != f"{segment.first:020}.segment":
        raise Damaged(Finding(Kind.MALFORMED, name, "name", f"the segment begins with sequence {segment.first}"))
    return segment


def read_deflated(file: BinaryIO, segment: Segment, index: int) -> bytes:
    """Reads a frame as it is stored, and compares it with its digest. Raises Damaged."""
    entry = segment.footer.frames[index]
    begin = segment.offsets[index]
    frame = _read(file, begin, entry.size, name=segment.file)
    if sha256(frame).hexdigest() != entry.digest:
        where = place(segment, index)
        raise Damaged(Finding(Kind.WRONG_DIGEST, segment.file, where, "bytes have changed since it was sealed"))
    return frame


def read_frame(file: BinaryIO, segment: Segment, index: int) -> Frame:
    """Reads a frame. Raises Damaged."""
    try:
        return inflate(read_deflated(file, segment, index))
    except ValueError as error:
        raise Damaged(Finding(Kind.MALFORMED, segment.file, place(segment, index), str(error))) from error


def place(segment: Segment, index: int) -> str:
    """Where a frame is: `bytes 4096 to 8191 (sequences from 17 on)`."""
    begin, end = segment.offsets[index : index + 2]
    return f"bytes {begin} to {end - 1} (sequences from {segment.footer.frames[index].first} on)"


def _read(file: BinaryIO, begin: int, size: int, *, name: str) -> bytes:
    try:
        file.seek(begin)
        return file.read(size)
    except OSError as error:
        raise _unreadable(name, f"bytes from {begin} on", error) from error


def _unreadable(name: str, where: str, error: OSError) -> Damaged:
    return Damaged(Finding(Kind.UNREADABLE, name, where, error.strerror or str(error)))
