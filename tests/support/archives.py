"""Small archives, and a disk that fails, fills up, or loses power at a chosen step."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from handrail.visibility.archive.folder import Folder, LockedFolder
from handrail.visibility.archive.frame import Record
from handrail.visibility.archive.reader import Reader
from handrail.visibility.archive.segment import Stream
from handrail.visibility.archive.writer import Writer

FLOW = Stream("FLOW", 1_795_842_672_035_231_000)

ABSENT = (7, 8, 15)
"""What the stream of a small archive does not have."""


def record(sequence: int, body: bytes = b"") -> Record:
    """A message; which one, its sequence says."""
    subject = f"flow.refund.{sequence % 3}.event.ledger.{sequence:032x}.payments.v1.RefundPaid"
    return Record(
        sequence, subject, sequence * 1_000_003, b"NATS/1.0\r\n\r\n" * (sequence % 2), body or b"%d" % sequence
    )


def give(writer: Writer, sequences: Iterable[int]) -> None:
    """Gives a writer these sequences, which `ABSENT` may have."""
    for sequence in sequences:
        if sequence in ABSENT:
            writer.absent(sequence, sequence)
        else:
            writer.append(record(sequence))


@contextmanager
def writing(path: Path, *, stream: Stream = FLOW, frame_bytes: int = 400, at_least: int = 0) -> Iterator[Writer]:
    """A writer of small frames, three or four messages each."""
    with LockedFolder(path) as folder:
        yield Writer(folder, stream, frame_bytes=frame_bytes, at_least=at_least)


def fill(path: Path, *, segments: int = 3, stream: Stream = FLOW) -> list[Record]:
    """Seals segments of ten sequences each. Returns the messages."""
    with writing(path, stream=stream) as writer:
        for begin in range(1, 10 * segments, 10):
            give(writer, range(begin, begin + 10))
            writer.seal()
    return [record(sequence) for sequence in range(1, 10 * segments + 1) if sequence not in ABSENT]


def held(path: Path) -> list[Record]:
    """Everything in an archive."""
    return list(Reader(Folder(path)).iterate())


class Killed(BaseException):
    """The process is gone. Not an Exception: nothing handles it."""


class Disk:
    """Stands in for the module `os` of the archive's folder: counts what changes the disk, and interrupts it.

    `interrupt` is called before each step with its number, from 0 on, and its name. What a power failure leaves is what
    was synced: the bytes of a file by its own sync, its name by that of the folder. Long writes are done in part.
    """

    def __init__(self, folder: Path, interrupt: Callable[[int, str], None]) -> None:
        self.steps = 0
        self._folder = folder
        self.interrupt = interrupt
        self._files: dict[str, int] = {}
        self._paths: dict[int, str] = {}
        self._synced_bytes: dict[int, bytes] = {}
        self._synced_names: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TRUNC:
            self._step("open")
        descriptor = os.open(path, flags, mode)
        self._paths[descriptor] = str(path)
        if flags & os.O_TRUNC:
            self._files[str(path)] = self.steps
        return descriptor

    def write(self, descriptor: int, data: memoryview) -> int:
        self._step("write")
        return os.write(descriptor, data[: max(len(data) // 2, 200)])

    def fsync(self, descriptor: int) -> None:
        self._step("fsync")
        path = Path(self._paths[descriptor])
        if path == self._folder:
            self._synced_names = {name: file for name, file in self._files.items() if Path(name).exists()}
        elif path.is_file():
            self._synced_bytes[self._files[str(path)]] = path.read_bytes()

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename")
        os.rename(source, target)
        self._files[str(target)] = self._files.pop(str(source))

    def unlink(self, path: Path) -> None:
        self._step("unlink")
        os.unlink(path)
        self._files.pop(str(path), None)

    def lose_power(self) -> None:
        """Leaves in the folder what was synced. A file that was not has its name and no bytes."""
        for each in self._folder.iterdir():
            each.unlink()
        for name, file in self._synced_names.items():
            Path(name).write_bytes(self._synced_bytes.get(file, b""))

    def _step(self, name: str) -> None:
        self.steps += 1
        self.interrupt(self.steps - 1, name)


def at(step: int, error: BaseException) -> Callable[[int, str], None]:
    """Interrupts at one step, and, if the process is gone, at each one after it."""

    def interrupt(number: int, name: str) -> None:
        if number == step or (number > step and isinstance(error, Killed)):
            raise error

    return interrupt


def full() -> OSError:
    """What the operating system says of a full disk."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
