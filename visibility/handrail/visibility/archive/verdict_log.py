"""The verdicts of an archive: files of blocks in its folder, appended to before flows are purged (docs/archive.md).

A file has the number of its first verdict as its name. A block's head is written after its data is on the disk: a crash
leaves a head of zeros, and what follows it does not count.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import zstandard

from handrail.visibility.archive.errors import CannotWrite, Damaged, Finding, Kind
from handrail.visibility.archive.folder import Folder, LockedFolder
from handrail.visibility.archive.verdict import Verdict, decode, encode

FILE_BYTES = 64 << 20
"""The size from which on a new file is begun."""

_HEAD = struct.Struct("<II32s")
_NAME = re.compile(r"(\d{20})\.verdicts")
_PART = ".part"


class _Block(NamedTuple):
    """Some verdicts: the number of the first one, how many, and where the head is in the file."""

    first: int
    number: int
    begin: int
    size: int
    digest: bytes


class VerdictLog:
    """Appends verdicts. Only the process that writes to the archive may have one. Raises Damaged."""

    def __init__(self, folder: LockedFolder, *, file_bytes: int = FILE_BYTES) -> None:
        self._folder = folder
        self._file_bytes = file_bytes
        self._is_broken = False
        for part in folder.path.glob(f"*.verdicts{_PART}"):
            os.unlink(part)
        *_, self._first = (1, *_firsts(folder))
        blocks = list(_blocks(self._path)) if self._path.exists() else []
        self._end = blocks[-1].begin + _HEAD.size + blocks[-1].size if blocks else 0
        self.count = blocks[-1].first + blocks[-1].number - 1 if blocks else self._first - 1

    @property
    def _path(self) -> Path:
        return _file(self._folder, self._first)

    def append(self, verdicts: Sequence[Verdict]) -> int:
        """Stores verdicts on the disk, and returns the number of the first of them.

        Raises CannotWrite: then none of them counts. If it can't remove what it wrote, it takes no more: open another.
        """
        if self._is_broken:
            why = "what an error left could not be removed"
            raise CannotWrite(self._folder.path, file=self._path.name, size=0, why=why)
        if self._end >= self._file_bytes:
            self._first, self._end = self.count + 1, 0
        data = zstandard.compress(encode(verdicts))
        head = _HEAD.pack(len(data), len(verdicts), sha256(data).digest())
        try:
            self._write(self._end, bytes(_HEAD.size) + data, cut=True)
            self._write(self._end, head)
            _sync_folder(self._folder.path)
        except OSError as error:
            self._remove_rest()
            why = error.strerror or str(error)
            raise CannotWrite(self._folder.path, file=self._path.name, size=len(data), why=why) from error
        first = self.count + 1
        self.count += len(verdicts)
        self._end += _HEAD.size + len(data)
        return first

    def replace(self, number: int, verdict: Verdict) -> None:
        """Replaces one verdict: after a crash, there is the former file or the new one. Raises Damaged, CannotWrite."""
        path = _holding(self._folder, number)
        parts: list[bytes] = []
        for block in _blocks(path):
            verdicts = _read(path, block)
            if block.first <= number < block.first + block.number:
                verdicts[number - block.first] = verdict
            data = zstandard.compress(encode(verdicts))
            parts += (_HEAD.pack(len(data), len(verdicts), sha256(data).digest()), data)
        part = path.with_name(path.name + _PART)
        try:
            with part.open("wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            os.rename(part, path)
            _sync_folder(self._folder.path)
        except OSError as error:
            with suppress(OSError):
                os.unlink(part)
            size, why = sum(map(len, parts)), error.strerror or str(error)
            raise CannotWrite(self._folder.path, file=path.name, size=size, why=why) from error
        if path == self._path:
            self._end = sum(map(len, parts))

    def _remove_rest(self) -> None:
        """Removes a block that does not count: its head may be there, though not on the disk."""
        try:
            self._write(self._end, b"", cut=True)
        except OSError:
            self._is_broken = True

    def _write(self, begin: int, data: bytes, *, cut: bool = False) -> None:
        """Writes to the disk; with `cut`, what a crash left there is removed first."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if cut:
                os.ftruncate(file, begin)
            done = 0
            while done < len(data):
                done += os.pwrite(file, data[done:], begin + done)
            os.fsync(file)
        finally:
            os.close(file)


def numbered(folder: Folder, *, after: int = 0, withdrawn: bool = False) -> Iterator[tuple[int, Verdict]]:
    """Yields the verdicts with a number beyond `after`, in order; those that were withdrawn only if told to.

    Raises Damaged.
    """
    return ((number, each) for number, each in _all(folder, after) if withdrawn or not each.withdrawn)


def _all(folder: Folder, after: int) -> Iterator[tuple[int, Verdict]]:
    firsts = _firsts(folder)
    expected = None
    for index, first in enumerate(firsts):
        if index + 1 < len(firsts) and firsts[index + 1] <= after + 1:
            continue
        path = _file(folder, first)
        if expected is not None and first != expected:
            raise Damaged(Finding(Kind.MISSING_SEGMENT, path.name, "name", f"verdict {expected} should be the first"))
        expected = first
        for block in _blocks(path):
            expected = block.first + block.number
            if expected > after + 1:
                yield from ((n, each) for n, each in enumerate(_read(path, block), block.first) if n > after)


def verdict_of(folder: Folder, number: int) -> Verdict:
    """The verdict with a number. Raises Damaged if there is none."""
    path = _holding(folder, number)
    for block in _blocks(path):
        if block.first <= number < block.first + block.number:
            return _read(path, block)[number - block.first]
    raise Damaged(Finding(Kind.MISSING_SEGMENT, path.name, "the file", f"it ends before verdict {number}"))


def verify_verdicts(folder: Folder) -> Iterator[Finding]:
    """Yields the first thing that is wrong with the verdicts."""
    try:
        for _ in _all(folder, 0):
            pass
    except Damaged as damaged:
        yield damaged.finding


def _firsts(folder: Folder) -> list[int]:
    try:
        names = os.listdir(folder.path)
    except FileNotFoundError:
        return []
    return sorted(int(found[1]) for found in map(_NAME.fullmatch, names) if found is not None)


def _file(folder: Folder, first: int) -> Path:
    return folder.path / f"{first:020}.verdicts"


def _holding(folder: Folder, number: int) -> Path:
    *_, first = (1, *(each for each in _firsts(folder) if each <= number))
    return _file(folder, first)


def _blocks(path: Path) -> Iterator[_Block]:
    """The blocks of a file, until the first that was not finished."""
    first, begin = int(path.name.partition(".")[0]), 0
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            while begin + _HEAD.size <= size:
                file.seek(begin)
                length, count, digest = _HEAD.unpack(file.read(_HEAD.size))
                if not length:
                    return
                yield _Block(first, count, begin, length, digest)
                first, begin = first + count, begin + _HEAD.size + length
    except (OSError, struct.error) as error:
        raise Damaged(Finding(Kind.UNREADABLE, path.name, f"byte {begin}", str(error))) from error


def _read(path: Path, block: _Block) -> list[Verdict]:
    where = f"bytes from {block.begin} on (verdicts from {block.first} on)"
    with path.open("rb") as file:
        file.seek(block.begin + _HEAD.size)
        data = file.read(block.size)
    if len(data) != block.size or sha256(data).digest() != block.digest:
        raise Damaged(Finding(Kind.WRONG_DIGEST, path.name, where, "bytes have changed since they were stored"))
    found = decode(zstandard.decompress(data), file=path.name, where=where)
    if len(found) != block.number:
        raise Damaged(Finding(Kind.UNACCOUNTED, path.name, where, f"{len(found)} verdicts, not {block.number}"))
    return found


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
