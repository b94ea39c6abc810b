"""The RECORD: the files that an installer wrote, with hash and size.

https://packaging.python.org/en/latest/specifications/recording-installed-packages/#the-record-file
"""

import base64
import binascii
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from demos.compliance.installed import Installed

RECORD = "RECORD"

ALGORITHMS = frozenset({"sha256", "sha384", "sha512"})
"""The hashes that a RECORD may use: https://packaging.python.org/en/latest/specifications/binary-distribution-format/"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a RECORD. `digest` is lower-case hex. Without a hash, `digest` and `algorithm` are empty."""

    path: str
    algorithm: str
    digest: str
    size: int | None

    @property
    def is_cache(self) -> bool:
        """Whether it is compiled code, which Python itself writes and removes."""
        return is_cache(self.path)

    def is_about_itself(self, folder: str) -> bool:
        """Whether it is the RECORD, or a signature of it: they can't hold their own hash."""
        return self.path in {f"{folder}/{name}" for name in (RECORD, "RECORD.jws", "RECORD.p7s")}


@dataclass(frozen=True, slots=True)
class BadLine:
    """An invalid line; lines count from 1."""

    line: int
    reason: str


def entries(installed: Installed) -> Iterator[Entry | BadLine] | None:
    """The lines of a distribution's RECORD; None if it has no RECORD.

    Raises:
        Unreadable: if the file can't be read.
    """
    text = installed.read(RECORD) if installed.folder.is_dir() else None
    return None if text is None else _parse(text)


def recorded(installed: Installed) -> list[Entry]:
    """The well-formed entries; empty without a RECORD.

    Raises:
        Unreadable: if the file can't be read.
    """
    return [each for each in entries(installed) or () if isinstance(each, Entry)]


def is_cache(path: str) -> bool:
    """Whether a path is one of compiled code."""
    return path.endswith((".pyc", ".pyo")) or "__pycache__" in PurePosixPath(path).parts


def _parse(text: str) -> Iterator[Entry | BadLine]:
    rows = csv.reader(io.StringIO(text, newline=""))
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield BadLine(rows.line_num, str(error))
            continue
        if row is None:
            return
        if row:
            yield _entry(rows.line_num, row)


def _entry(line: int, row: list[str]) -> Entry | BadLine:
    if len(row) != 3 or not row[0]:
        return BadLine(line, f"it has {len(row)} fields, not path, hash and size")
    path, hash_, size = row
    algorithm, _, encoded = hash_.partition("=")
    try:
        digest = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).hex()
        return Entry(path, algorithm, digest, int(size) if size else None)
    except (binascii.Error, ValueError):
        return BadLine(line, f"hash or size of {path} can't be read")
