"""Archives the messages that are followed."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from handrail.mesh.bus import RawMessage
from handrail.visibility.archive.folder import LockedFolder
from handrail.visibility.archive.frame import Record
from handrail.visibility.archive.segment import Stream
from handrail.visibility.archive.writer import AGE, Sealed, Writer

log = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CREATED = re.compile(r"(.+?)(?:\.(\d{1,9}))?Z")
"""A time as the broker writes it, with up to nine digits of a second."""


class Archiver:
    """Writes to an archive, one call after the other, each in a thread: they wait for the disk.

    What the follower did not deliver between two messages the stream does not have: the broker counts what it delivers.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, folder: LockedFolder, name: str, created: str, *, age: timedelta = AGE) -> Archiver:
        """Opens the archive of the stream of this name that was created at this time, as the broker writes it.

        Raises Damaged if a segment is not what was sealed, and OtherStream.
        """
        stream = Stream(name, nanoseconds(created))
        return cls(await asyncio.to_thread(Writer, folder, stream, age=age))

    @property
    def mark(self) -> int:
        """Everything up to this sequence is sealed and on the disk."""
        return self._writer.mark

    async def take(self, messages: Sequence[RawMessage]) -> None:
        """Archives messages in stream order; those that it has are passed over.

        Raises CannotWrite if a segment can't be sealed: then pass what is behind the last one taken again.
        """
        async with self._turn:
            await asyncio.to_thread(self._take, messages)

    async def seal_if_due(self) -> None:
        """Seals what waited long enough. Raises CannotWrite."""
        async with self._turn:
            _tell(await asyncio.to_thread(self._writer.seal_if_due))

    def _take(self, messages: Sequence[RawMessage]) -> None:
        for message in messages:
            expected = self._writer.next
            if message.sequence < expected:
                continue
            if message.sequence > expected:
                self._writer.absent(expected, message.sequence - 1)
            self._writer.append(_record(message))
        _tell(self._writer.seal_if_due())


def nanoseconds(created: str) -> int:
    """A time of the broker in nanoseconds since 1970. Raises ValueError if it is none."""
    parts = _CREATED.fullmatch(created)
    if parts is None:
        raise ValueError(f"{created[:80]} is no time in UTC")
    seconds = datetime.fromisoformat(parts[1]).replace(tzinfo=UTC)
    return int((seconds - _EPOCH).total_seconds()) * 1_000_000_000 + int((parts[2] or "0").ljust(9, "0"))


def _record(message: RawMessage) -> Record:
    """A message without its headers: a flow's messages need none, and whoever publishes may choose them freely."""
    return Record(message.sequence, message.subject, (message.time - _EPOCH) // _MICROSECOND * 1000, b"", message.body)


def _tell(sealed: Sealed | None) -> None:
    if sealed is not None:
        log.info(
            "sealed sequences %d to %d, %d messages, SHA-256 %s", sealed.first, sealed.last, sealed.count, sealed.digest
        )
