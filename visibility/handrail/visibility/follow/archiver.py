"""Archives the messages that are followed."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from threading import Lock

from handrail.mesh.bus import NatsBus, RawMessage
from handrail.mesh.instants import from_nanoseconds, micros
from handrail.mesh.streams.reading import is_stored
from handrail.visibility.archive.errors import NoRecord
from handrail.visibility.archive.folder import LockedFolder
from handrail.visibility.archive.frame import Record
from handrail.visibility.archive.reader import Reader
from handrail.visibility.archive.segment import Stream
from handrail.visibility.archive.writer import AGE, Sealed, Writer

log = logging.getLogger(__name__)

_CREATED = re.compile(r"(.+?)(?:\.(\d{1,9}))?Z")
"""A time as the broker writes it, with up to nine digits of a second."""


class Archiver:
    """Writes to an archive, one call after the other, each in a thread: they wait for the disk.

    What was not read between two messages the stream does not have: its leader was asked.
    """

    def __init__(self, writer: Writer, stream: Stream, last: Record | None) -> None:
        self._writer = writer
        self._stream = stream
        self._last = last
        self._turn = Lock()
        self._is_retired = False

    @classmethod
    async def open(cls, folder: LockedFolder, name: str, created: str, *, age: timedelta = AGE) -> Archiver:
        """Opens the archive of the stream of this name that was created at this time, as the broker writes it.

        Raises Damaged if a segment is not what was sealed, and OtherStream.
        """
        stream = Stream(name, nanoseconds(created))
        return await asyncio.to_thread(cls._open, folder, stream, age)

    @classmethod
    def _open(cls, folder: LockedFolder, stream: Stream, age: timedelta) -> Archiver:
        writer = Writer(folder, stream, age=age)
        return cls(writer, stream, _sealed(folder, writer.mark))

    @property
    def created(self) -> int:
        """When the stream was created, in nanoseconds since 1970."""
        return self._stream.created_ns

    @property
    def mark(self) -> int:
        """Everything up to this sequence is sealed and on the disk."""
        return self._writer.mark

    @property
    def covered(self) -> int:
        """Everything up to this sequence is sealed, or waits in memory for it."""
        return self._writer.next - 1

    async def is_of(self, bus: NatsBus, last_sequence: int) -> bool:
        """Whether the stream, which ends with this sequence, still has the newest message that the archive has."""
        covered, last = await asyncio.to_thread(self._newest)
        if last is None or covered > last_sequence:
            return covered <= last_sequence
        time = from_nanoseconds(last.time_ns)
        return await is_stored(bus, last.sequence, time, last.body)

    async def take(self, messages: Sequence[RawMessage]) -> None:
        """Archives messages in stream order; those that it has are passed over.

        Raises CannotWrite if a segment can't be sealed: then pass what is behind the last one taken again.
        """
        await asyncio.to_thread(self._take, messages)

    async def seal_if_due(self) -> None:
        """Seals what waited long enough. Raises CannotWrite."""
        await asyncio.to_thread(self._seal_if_due)

    async def retire(self) -> None:
        """Waits until nothing is written, and has nothing written from now on: another may be opened."""
        await asyncio.to_thread(self._retire)

    def _take(self, messages: Sequence[RawMessage]) -> None:
        # A thread outlives the task that waited for it: it must not meet the next one.
        with self._turn:
            for message in () if self._is_retired else messages:
                self._add(message)

    def _seal_if_due(self) -> None:
        with self._turn:
            if not self._is_retired:
                _tell(self._writer.seal_if_due())

    def _newest(self) -> tuple[int, Record | None]:
        with self._turn:
            return self.covered, self._last

    def _retire(self) -> None:
        with self._turn:
            self._is_retired = True

    def _add(self, message: RawMessage) -> None:
        expected = self._writer.next
        if message.sequence < expected:
            return
        if message.sequence > expected:
            self._writer.absent(expected, message.sequence - 1)
        record = _record(message)
        self._writer.append(record)
        self._last = record
        _tell(self._writer.seal_if_full())


def nanoseconds(created: str) -> int:
    """A time of the broker in nanoseconds since 1970. Raises ValueError if it is none."""
    parts = _CREATED.fullmatch(created)
    if parts is None:
        raise ValueError(f"{created[:80]} is no time in UTC")
    seconds = datetime.fromisoformat(parts[1]).replace(tzinfo=UTC)
    return micros(seconds) * 1000 + int((parts[2] or "0").ljust(9, "0"))


def _sealed(folder: LockedFolder, sequence: int) -> Record | None:
    """The archived message; None if it is absent or was erased. Raises Damaged."""
    try:
        return Reader(folder).read(sequence) if sequence else None
    except NoRecord:
        return None


def _record(message: RawMessage) -> Record:
    """A message without its headers: a flow's messages need none, and whoever publishes may choose them freely."""
    return Record(message.sequence, message.subject, micros(message.time) * 1000, b"", message.body)


def _tell(sealed: Sealed | None) -> None:
    if sealed is not None:
        log.info(
            "sealed sequences %d to %d, %d messages, SHA-256 %s", sealed.first, sealed.last, sealed.count, sealed.digest
        )
