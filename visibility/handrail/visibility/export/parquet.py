"""Parquet files: one for each segment of an archive, whole or not there."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import pyarrow
from pyarrow import parquet

from handrail.visibility.archive.errors import ArchiveError
from handrail.visibility.archive.folder import Folder
from handrail.visibility.archive.segment import Segment
from handrail.visibility.archive.segment_file import opened, read_frame
from handrail.visibility.archive.verify import verify_segment
from handrail.visibility.export.rows import ContractsOf, Row, Wanted, row_of

FORMAT = 1
"""Raise it with each change of the rows: files of another format are written anew."""

_GROUP_BYTES = 16 << 20
"""How much is written at once, and waits in memory before: a group of rows, which tools read as a whole."""

_MADE_OF = b"handrail"

_WORD = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())

COLUMNS = pyarrow.schema(
    [
        pyarrow.field("sequence", pyarrow.int64(), nullable=False),
        pyarrow.field("time", pyarrow.timestamp("us", tz="UTC"), nullable=False),
        ("flow_type", _WORD),
        ("flow_id", pyarrow.string()),
        ("kind", _WORD),
        ("agent", _WORD),
        ("event_id", pyarrow.string()),
        ("message_type", _WORD),
        ("template_version", pyarrow.int64()),
        ("step", _WORD),
        ("attempt", pyarrow.int64()),
        ("payload", pyarrow.string()),
        ("raw", pyarrow.binary()),
        ("subject", pyarrow.string()),
    ]
)


class ExportInUse(ArchiveError):
    """Another process writes to the folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"another export writes to {folder}: wait for it, or give another folder")


@dataclass(frozen=True, slots=True)
class Exported:
    """A file of the export, and how many rows it has. `is_new`: it was not there, or of something else."""

    path: Path
    rows: int
    is_new: bool


class Export:
    """A folder of Parquet files that nobody else writes to until it is closed.

    `contracts` names where the contracts come from. A file that was made of the same segment in the same way is kept.
    Creates the folder if it is missing, for this user alone. Raises ExportInUse and OSError.
    """

    def __init__(self, path: Path, *, wanted: Wanted, contracts: str, contracts_of: ContractsOf) -> None:
        path.mkdir(mode=0o700, exist_ok=True)
        self._path = path
        self._wanted = wanted
        self._contracts = contracts
        self._contracts_of = contracts_of
        self._lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise ExportInUse(path) from error

    def add(self, folder: Folder, first: int) -> Exported:
        """Exports the segment that begins with this sequence.

        Raises Damaged if any of it is not what was sealed, OSError, and what `contracts_of` raises: then there is no
        new file.
        """
        source = folder.file(first)
        path = self._path / f"{source.stem}.parquet"
        with opened(source) as file:
            segment = verify_segment(file, source.name)
            made_of = self._made_of(segment)
            rows = _rows_made_of(path, made_of)
            if rows is not None:
                return Exported(path, rows, is_new=False)
            return Exported(path, self._write(path, made_of, self._rows(file, segment)), is_new=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)

    def _rows(self, file: BinaryIO, segment: Segment) -> Iterator[Row]:
        for index in range(len(segment.footer.frames)):
            for record in read_frame(file, segment, index).records():
                row = row_of(record, self._wanted, self._contracts_of)
                if row is not None:
                    yield row

    def _write(self, path: Path, made_of: bytes, rows: Iterable[Row]) -> int:
        """Writes a file under another name, and renames it once it is on the disk. Returns the number of rows."""
        part = path.with_name(path.name + ".part")
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                count = _write_rows(file, made_of, rows)
                file.flush()
                os.fsync(file.fileno())
            os.rename(part, path)
            os.fsync(self._lock)
        finally:
            with suppress(FileNotFoundError):
                part.unlink()
        return count

    def _made_of(self, segment: Segment) -> bytes:
        """What a file depends on."""
        since, until = self._wanted.since, self._wanted.until
        return json.dumps(
            {
                "format": FORMAT,
                "stream": segment.header.stream.name,
                "created_ns": str(segment.header.stream.created_ns),
                "segment": segment.digest,
                "since": since and since.isoformat(),
                "until": until and until.isoformat(),
                "flow_types": sorted(self._wanted.flow_types),
                "contracts": self._contracts,
            }
        ).encode()


def _write_rows(file: BinaryIO, made_of: bytes, rows: Iterable[Row]) -> int:
    columns = COLUMNS.with_metadata({_MADE_OF: made_of})
    count, size, waiting = 0, 0, list[Row]()
    with parquet.ParquetWriter(file, columns, compression="zstd") as writer:
        for row in rows:
            waiting.append(row)
            count, size = count + 1, size + row.size
            if size >= _GROUP_BYTES:
                writer.write_batch(_batch(waiting, columns))
                waiting, size = [], 0
        if waiting:
            writer.write_batch(_batch(waiting, columns))
    return count


def _batch(rows: list[Row], columns: pyarrow.Schema) -> pyarrow.RecordBatch:
    values = zip(*rows, strict=True)
    arrays = [pyarrow.array(some, type=column.type) for some, column in zip(values, columns, strict=True)]
    return pyarrow.RecordBatch.from_arrays(arrays, schema=columns)


def _rows_made_of(path: Path, made_of: bytes) -> int | None:
    """How many rows a file has; None if it is missing, broken, or made of something else."""
    try:
        found = parquet.read_metadata(path)
    except (OSError, pyarrow.ArrowException):
        return None
    rows: int = found.num_rows
    return rows if (found.metadata or {}).get(_MADE_OF) == made_of else None
