"""The folder of an archive: which segments it has, one writer at a time, and files that are whole or not there."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from handrail.visibility.archive.errors import ArchiveInUse, CannotWrite

_NAME = re.compile(r"(\d{20})\.segment")
_PART = ".part"
_LOCK = "lock"


class Folder:
    """A folder of segments, each named by its first sequence. `path` need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def firsts(self) -> list[int]:
        """The first sequences of all segments, by their names, in order. Raises OSError."""
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return []
        return sorted(int(found[1]) for found in map(_NAME.fullmatch, names) if found is not None)

    def file(self, first: int) -> Path:
        """The file of the segment that begins with this sequence."""
        return self.path / f"{first:020}.segment"


class LockedFolder(Folder):
    """A folder that nobody else writes to until it is closed, or the process ends. Readers need no lock.

    Creates the folder if it is missing, for this user alone, but not the one above it: a disk may be missing there.
    Removes what a crash left unfinished. Raises ArchiveInUse, and OSError if the folder can't be created or read.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        path.mkdir(mode=0o700, exist_ok=True)
        self._lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for each in path.glob(f"*.segment{_PART}"):
                os.unlink(each)
            for each in (path, path.parent):
                self._sync(each)  # a crash may have come between a name and its sync
        except BlockingIOError as error:
            self.close()
            raise ArchiveInUse(path) from error
        except BaseException:
            self.close()
            raise

    def put(self, first: int, parts: Sequence[bytes], check: Callable[[Path], None]) -> None:
        """Writes a segment, or replaces it, in one step: after a crash there is the former one, or all of the new one.

        It is on the disk and was read back by `check` before it gets its name. Raises CannotWrite, and what `check`
        raises: then nothing has changed, unless only the last step failed, the sync of the folder.
        """
        path = self.file(first)
        part = path.with_name(path.name + _PART)
        try:
            self._write(part, parts)
            check(part)
            os.rename(part, path)
            self._sync(self.path)
        except OSError as error:
            self._remove(part)
            size = sum(map(len, parts))
            raise CannotWrite(self.path, file=path.name, size=size, why=error.strerror or str(error)) from error
        except Exception:
            self._remove(part)
            raise

    def close(self) -> None:
        """Lets others write. Closing twice does nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    def _write(part: Path, parts: Sequence[bytes]) -> None:
        file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            for each in parts:
                rest = memoryview(each)
                while rest:
                    rest = rest[os.write(file, rest) :]
            os.fsync(file)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)  # what is read back comes from the disk
        finally:
            os.close(file)

    @staticmethod
    def _sync(path: Path) -> None:
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @staticmethod
    def _remove(part: Path) -> None:
        with suppress(OSError):  # the next writer removes it
            os.unlink(part)
