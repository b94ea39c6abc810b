"""A file whose content is read again whenever the file has changed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)

LARGEST = 1 << 20
"""The largest file that is read, in bytes."""


class Unreadable(Exception):
    """The file can't be read, or its content is malformed. The text says which file and why."""


class RereadFile(Generic[T]):
    """Fails closed: while the file can't be read, there is no value, not even the last one. Replace it atomically.

    `parse` raises ValueError with what the file is or holds, such as "holds no key".
    """

    def __init__(self, path: Path, parse: Callable[[bytes], T]) -> None:
        self._path = path
        self._parse = parse
        self._seen: tuple[int, ...] | None = None
        self._value: T | None = None
        self._why = ""
        self.generation = 0
        """How often the content was read: it grows with each change of the file."""

    def value(self) -> T:
        """Returns what the file says; raises Unreadable."""
        seen = self._state()
        if seen != self._seen or not self.generation:
            self._seen = seen
            self._read()
        if self._value is None:
            raise Unreadable(self._why)
        return self._value

    def _state(self) -> tuple[int, ...] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)

    def _read(self) -> None:
        self.generation += 1
        self._value = None
        try:
            with self._path.open("rb") as file:
                data = file.read(LARGEST + 1)
            if len(data) > LARGEST:
                raise ValueError(f"has more than {LARGEST} bytes")
            self._value = self._parse(data)
        except OSError as error:
            self._why = f"{self._path} can't be read: {error.strerror}"
        except ValueError as error:
            self._why = f"{self._path} {error}"
        if self._value is None:
            log.error("%s; until that is mended, it counts for nothing", self._why)
        elif self.generation > 1:
            log.info("%s has changed and was read again", self._path)
