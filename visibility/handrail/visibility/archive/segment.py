"""The format of a segment: header, frames, footer, trailer (docs/archive.md). Pure: bytes in, bytes out.

One digest stands for all of a segment: it covers header and footer, and the footer has the digest of each frame.
"""

from __future__ import annotations

import json
import struct
from bisect import bisect_right
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from typing import NamedTuple

from handrail.visibility.archive.errors import Damaged, Finding, Kind
from handrail.visibility.archive.ranges import Range, are_ordered, contains, length

FORMAT = 1
NO_LINK = sha256(b"").hexdigest()
"""What the first segment of an archive names as the link of its predecessor."""

_BEGIN = struct.Struct("<8sII")
_BEGIN_MAGIC = b"HANDRAIL"
_TRAILER = struct.Struct("<I32s8s")
_END_MAGIC = b"\nSEALED\n"

PREFIX_BYTES = _BEGIN.size
TRAILER_BYTES = _TRAILER.size


class Stream(NamedTuple):
    """A stream in one life: its name, and when the broker created it, in nanoseconds since 1970."""

    name: str
    created_ns: int

    def __str__(self) -> str:
        return f"stream {self.name}, created at {self.created_ns} ns"


@dataclass(frozen=True, slots=True)
class Header:
    """The begin of a segment. `first` is its first sequence, `previous` the link of the segment before it."""

    stream: Stream
    first: int
    previous: str

    def encode(self) -> bytes:
        """The bytes, with the format's name and version before them."""
        text = _json(
            {
                "stream": self.stream.name,
                "created_ns": str(self.stream.created_ns),
                "first": self.first,
                "previous": self.previous,
            }
        )
        return _BEGIN.pack(_BEGIN_MAGIC, FORMAT, len(text)) + text


@dataclass(frozen=True, slots=True)
class FrameEntry:
    """A frame in the footer. It has what there is of the sequences from `first` to the next frame.

    `size` is in bytes, `digest` the SHA-256 of these bytes.
    """

    first: int
    count: int
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What a rewritten segment says of itself: the digests of the versions before it, oldest first; the footer of the
    oldest, unchanged; and the sequences that were erased since.
    """

    replaces: tuple[str, ...]
    original: str
    erased: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Footer:
    """The end of a segment. `last` is its last sequence, `count` the number of its messages.

    `absent` are the sequences that the stream did not have when the segment was sealed.
    """

    last: int
    count: int
    absent: tuple[Range, ...]
    frames: tuple[FrameEntry, ...]
    rewrite: Rewrite | None = None

    def encode(self) -> bytes:
        """The bytes: JSON."""
        rewrite = self.rewrite
        return _json(
            {
                "last": self.last,
                "count": self.count,
                "absent": self.absent,
                "frames": [(each.first, each.count, each.size, each.digest) for each in self.frames],
                "rewrite": rewrite
                and {"replaces": rewrite.replaces, "original": rewrite.original, "erased": rewrite.erased},
            }
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment without its frames. `file` names it in errors."""

    file: str
    header: Header
    footer: Footer
    digest: str
    link: str
    """The digest with which it was sealed first. A rewrite keeps it, and the next segment names it."""
    encoded: tuple[bytes, bytes]
    """Header and footer as they are stored: their digests hold for these bytes alone."""
    offsets: tuple[int, ...]
    """Where each frame begins in the file; at the end, where the footer begins."""

    @property
    def first(self) -> int:
        """Its first sequence."""
        return self.header.first

    @property
    def last(self) -> int:
        """Its last sequence."""
        return self.footer.last

    @property
    def erased(self) -> tuple[Range, ...]:
        """The sequences that were erased."""
        return self.footer.rewrite.erased if self.footer.rewrite is not None else ()

    def frame_of(self, sequence: int) -> int | None:
        """The index of the frame that has this sequence if the segment has it."""
        index = bisect_right(self.footer.frames, sequence, key=lambda each: each.first) - 1
        missing = contains(self.footer.absent, sequence) or contains(self.erased, sequence)
        return None if index < 0 or missing or sequence > self.last else index

    def complaint(self) -> str:
        """Why its range is not accounted for: each sequence is in a frame, or listed as absent or erased. Or empty."""
        listed = sorted((*self.footer.absent, *self.erased))
        firsts = [each.first for each in self.footer.frames]
        if not are_ordered(listed, within=(self.first, self.last)):
            return "the lists of absent and erased sequences contradict each other, or the range"
        if firsts != sorted(set(firsts)) or (firsts and not self.first <= firsts[0] <= firsts[-1] <= self.last):
            return "the frames are not in order"
        present = sum(each.count for each in self.footer.frames)
        if present != self.footer.count or present + length(listed) != self.last - self.first + 1:
            return f"of {self.last - self.first + 1} sequences {present} are there, and {length(listed)} are listed"
        return ""


def trailer(header: bytes, footer: bytes) -> bytes:
    """The end of the file: the footer's length, and the digest of header and footer."""
    return _TRAILER.pack(len(footer), sha256(header + footer).digest(), _END_MAGIC)


def digest(header: bytes, footer: bytes) -> str:
    """The digest of a segment with this header and footer."""
    return sha256(header + footer).hexdigest()


def header_size(prefix: bytes, *, file: str) -> int:
    """The size in bytes of the header that begins with these `PREFIX_BYTES`. Raises Damaged."""
    if len(prefix) < PREFIX_BYTES:
        raise _malformed(file, "header", "the file is too short")
    magic, version, size = _BEGIN.unpack(prefix)
    if magic != _BEGIN_MAGIC:
        raise _malformed(file, "header", "it does not begin like a segment")
    if version != FORMAT:
        raise _malformed(file, "header", f"it has format {version}, and this release reads format {FORMAT}")
    return PREFIX_BYTES + int(size)


def footer_size(end: bytes, *, file: str) -> int:
    """The size in bytes of the footer before a trailer. Raises Damaged."""
    if len(end) < TRAILER_BYTES or not end.endswith(_END_MAGIC):
        raise _malformed(file, "trailer", "it does not end like a sealed segment")
    return int(_TRAILER.unpack(end)[0])


def parse(header: bytes, footer: bytes, end: bytes, *, file: str) -> Segment:
    """Reads a segment from its header, footer and trailer. Raises Damaged if they don't belong together."""
    if trailer(header, footer) != end:
        finding = Finding(
            Kind.WRONG_DIGEST, file, "header, footer or trailer", "bytes have changed since it was sealed"
        )
        raise Damaged(finding)
    try:
        head, foot = _header(header), _footer(footer)
    except (ValueError, TypeError, KeyError) as error:
        raise _malformed(file, "header or footer", f"a field is missing or wrong ({error})") from error
    own = digest(header, footer)
    link = own if foot.rewrite is None else digest(header, foot.rewrite.original.encode())
    offsets = tuple(accumulate((each.size for each in foot.frames), initial=len(header)))
    return Segment(file, head, foot, own, link, (header, footer), offsets)


def original(segment: Segment) -> Footer:
    """The footer with which a segment was sealed first. Raises Damaged."""
    if segment.footer.rewrite is None:
        return segment.footer
    try:
        return _footer(segment.footer.rewrite.original.encode())
    except (ValueError, TypeError, KeyError) as error:
        raise _malformed(segment.file, "original footer", f"a field is missing or wrong ({error})") from error


def _header(encoded: bytes) -> Header:
    fields = json.loads(encoded[PREFIX_BYTES:])
    return Header(
        Stream(str(fields["stream"]), int(fields["created_ns"])), int(fields["first"]), str(fields["previous"])
    )


def _footer(encoded: bytes) -> Footer:
    fields = json.loads(encoded)
    found = fields["rewrite"]
    rewrite = found and Rewrite(tuple(found["replaces"]), found["original"], _ranges(found["erased"]))
    frames = tuple(FrameEntry(*each) for each in fields["frames"])
    return Footer(int(fields["last"]), int(fields["count"]), _ranges(fields["absent"]), frames, rewrite)


def _ranges(found: list[list[int]]) -> tuple[Range, ...]:
    return tuple((first, last) for first, last in found)


def _json(value: dict[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _malformed(file: str, where: str, text: str) -> Damaged:
    return Damaged(Finding(Kind.MALFORMED, file, where, text))
