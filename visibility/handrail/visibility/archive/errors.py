"""What can go wrong with an archive, and what is wrong with a damaged one.

ArchiveError          an error of the archive
├── ArchiveInUse      another process writes to it
├── OtherStream       it holds another stream, or an earlier one of the same name
├── OutOfOrder        the next message is not the one that follows
├── CannotWrite       a segment can't be written: the disk is full, or broken
├── NoRecord          it does not hold the message of a sequence, and why
└── Damaged           a file is not what was sealed
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason


class Kind(Enum):
    """What is wrong with an archive."""

    MISSING_SEGMENT = "missing segment"
    """Sequences that lie before or between two segments are in neither."""
    OVERLAP = "overlap"
    """Two segments claim the same sequences."""
    WRONG_CHAIN = "wrong chain"
    """A segment was not sealed as the successor of the one before it, or a rewrite changed more than it says."""
    WRONG_DIGEST = "wrong digest"
    """Bytes are not those that were sealed."""
    UNACCOUNTED = "absent without a record"
    """A sequence is neither there nor listed as absent or erased; or it is there although it is listed."""
    OTHER_STREAM = "other stream"
    """A segment holds another stream than the one before it."""
    MALFORMED = "malformed"
    """A file is not a segment, or one of a later format."""
    UNREADABLE = "unreadable"
    """The operating system can't open or read the file."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: in which file of the archive, where in it, and what."""

    kind: Kind
    file: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}, {self.where}: {self.kind.value}: {self.text}"


class ArchiveError(HandrailError):
    """An error of the archive."""

    def __init__(self, text: str, *, reason: ErrorReason.ValueType = ErrorReason.ERROR_REASON_INTERNAL) -> None:
        super().__init__(reason, text)


class ArchiveInUse(ArchiveError):
    """Another process, or another writer of this one, holds the folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"the archive in {folder} is in use by another process: end that one, or use another folder")


class OtherStream(ArchiveError):
    """The archive holds another stream, or an earlier stream of the same name."""

    def __init__(self, folder: Path, *, held: str, given: str) -> None:
        super().__init__(
            f"the archive in {folder} holds {held}, and this is {given}: give each stream a folder of its own",
            reason=ErrorReason.ERROR_REASON_FOREIGN_STREAM,
        )


class OutOfOrder(ArchiveError):
    """The message does not follow the last one. `expected` is the sequence that has to come next."""

    def __init__(self, *, expected: int, given: int) -> None:
        why = (
            "read the missing messages, or report them as absent"
            if given > expected
            else "the archive has this sequence already"
        )
        super().__init__(f"sequence {expected} comes next in the archive, but {given} was given: {why}")
        self.expected = expected


class CannotWrite(ArchiveError):
    """A segment can't be written. Nothing sealed is lost, and what is not sealed may be sealed again."""

    def __init__(self, folder: Path, *, file: str, size: int, why: str) -> None:
        super().__init__(
            f"{file} ({size} bytes) can't be written to the archive in {folder}: {why}. Make room there, "
            "or repair the disk: nothing is lost, and the next attempt seals these messages"
        )


class NoRecord(ArchiveError):
    """The archive does not hold the message of a sequence. `erased` and `absent` say why; neither: it is not sealed."""

    def __init__(self, sequence: int, *, erased: bool = False, absent: bool = False) -> None:
        why = (
            "it was erased"
            if erased
            else "the stream did not have it when this part was sealed"
            if absent
            else "it is not sealed yet"
        )
        super().__init__(f"the archive has no message with sequence {sequence}: {why}")
        self.sequence = sequence
        self.erased = erased
        self.absent = absent


class Damaged(ArchiveError):
    """A file of the archive is not what was sealed, so nothing of the damaged part is served."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(f"the archive is damaged: {finding}; restore the file from a copy")
        self.finding = finding
