"""What a database says, as INDEX_UNAVAILABLE. A broken file of SQLite is set aside, so that the index begins anew."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NoReturn

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from handrail.mesh.errors import HandrailError
from handrail.mesh.printable import clean
from handrail.v1.error_reason_pb2 import ErrorReason

_MAGIC = b"SQLite format 3\0"
"""How each database of SQLite begins."""

_ASIDE = ".broken"

_ADVICE = {
    "2BP01": "drop the views that read the tables of the schema handrail, and create them again afterwards",
    "42501": "the user must own the schema handrail and its tables, or may create it: GRANT CREATE ON DATABASE",
}
"""Maps codes of PostgreSQL to what to do."""


def index_error(text: str) -> HandrailError:
    """The error for a database that can't be used."""
    return HandrailError(ErrorReason.ERROR_REASON_INDEX_UNAVAILABLE, f"the database of the index can't be used: {text}")


def refuse(error: SQLAlchemyError, engine: Engine) -> NoReturn:
    """Raises what the database said as INDEX_UNAVAILABLE: on one line, without the statement and its values.

    A broken file of SQLite is renamed first: the next `prepare` begins anew.
    """
    said = _said(error)
    parts = [said_by(error)]
    if _is_broken(said) and engine.url.database:
        parts.append(_set_aside(engine, Path(engine.url.database)))
    parts += [advice for code, advice in _ADVICE.items() if getattr(said, "sqlstate", None) == code]
    raise index_error("; ".join(parts)) from error


def said_by(error: SQLAlchemyError) -> str:
    """Returns what the database said, on one line, without the statement and its values."""
    return clean(" ".join(str(_said(error)).split()))


def _said(error: SQLAlchemyError) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


def _is_broken(said: BaseException | None) -> bool:
    """Tells whether SQLite says that its file is broken, or no database."""
    code: int = getattr(said, "sqlite_errorcode", 0)  # its lowest byte is the kind, the others say more
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _set_aside(engine: Engine, file: Path) -> str:
    """Renames a broken file, and what belongs to it, and returns what was done. A file of another kind stays."""
    engine.dispose()
    try:
        with file.open("rb") as opened:
            begins = opened.read(len(_MAGIC))
        if begins not in (b"", _MAGIC):
            return f"{file} is no file of SQLite: give another one, or remove it"
        for end in ("", "-wal", "-shm"):  # the file first: without its log, it could pass for a whole one
            part, aside = Path(f"{file}{end}"), Path(f"{file}{_ASIDE}{end}")
            if part.exists():
                part.replace(aside)
            else:
                aside.unlink(missing_ok=True)
    except OSError as error:
        return f"{file} could not be renamed ({error.strerror}): remove it"
    return f"{file} was renamed to {file.name}{_ASIDE}, and the index begins anew"
