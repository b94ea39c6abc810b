"""The database: opening it, and telling whether its index can be gone on with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from sqlalchemy import Connection, Engine, create_engine, event, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from handrail.mesh.errors import HandrailError
from handrail.mesh.printable import clean
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.visibility.index import schema

SQLITE, POSTGRESQL = "sqlite", "postgresql"

_CORRUPT = ("malformed", "not a database", "disk image", "invalid page", "corrupt")
"""Parts of what databases say of a file that is broken."""


@dataclass(frozen=True, slots=True)
class Position:
    """What the index covers: the stream created at `stream_created`, up to `sequence`, which was stored at `time`."""

    stream_created: str
    sequence: int = 0
    time: datetime | None = None


def open_engine(address: str) -> Engine:
    """Returns an engine for `sqlite:///FILE` or `postgresql://USER@HOST/DATABASE`; connects to nothing.

    Raises INDEX_UNAVAILABLE if the address is none of these, or the file's folder is missing.
    """
    url = _url(address)
    if url.drivername == POSTGRESQL:
        return create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    if url.database and url.database != ":memory:" and not Path(url.database).absolute().parent.is_dir():
        raise index_error(f"the folder of {url.database} does not exist: create it")
    engine = create_engine(url.set(drivername="sqlite+pysqlite"), connect_args={"timeout": 10})
    event.listen(engine, "connect", _tune_sqlite)
    return engine


def prepare(engine: Engine, stream_created: str) -> Position:
    """Creates the tables, or empties those that this index can't go on with; returns the position to go on from.

    These are of another schema or of another stream. A corrupt file of SQLite is replaced. Raises INDEX_UNAVAILABLE if
    the database can't be reached or written.
    """
    try:
        return _prepared(engine, stream_created)
    except DBAPIError as error:
        if not is_corrupt(error) or not _replace_file(engine):
            refuse(error)
    except SQLAlchemyError as error:
        refuse(error)
    try:
        return _prepared(engine, stream_created)
    except SQLAlchemyError as error:
        refuse(error)


def begin_anew(engine: Engine, stream_created: str) -> Position:
    """Empties the index; returns the position to begin from. Raises INDEX_UNAVAILABLE."""
    try:
        return _begun(engine, stream_created)
    except SQLAlchemyError as error:
        refuse(error)


def read_position(connection: Connection) -> Position | None:
    """The position of an index of this schema; None if it has none."""
    row = connection.execute(select(schema.position).where(schema.position.c.schema == schema.SCHEMA)).one_or_none()
    return None if row is None else Position(row.stream_created, row.sequence, row.time)


def is_corrupt(error: DBAPIError) -> bool:
    """Tells whether the database says that its file is broken."""
    text = str(error.orig).lower()
    return any(part in text for part in _CORRUPT)


def refuse(error: SQLAlchemyError) -> NoReturn:
    """Raises what the database said as INDEX_UNAVAILABLE: on one line, without the statement and its values."""
    said = error.orig if isinstance(error, DBAPIError) else error
    raise index_error(clean(" ".join(str(said).split()))) from error


def index_error(text: str) -> HandrailError:
    """The error for a database that can't be used."""
    return HandrailError(ErrorReason.ERROR_REASON_INDEX_UNAVAILABLE, f"the database of the index can't be used: {text}")


def _url(address: str) -> URL:
    try:
        url = make_url(address)
        if url.drivername in (SQLITE, POSTGRESQL):
            return url
    except ArgumentError:
        pass
    raise index_error("its address must be sqlite:///FILE or postgresql://USER@HOST/DATABASE")


def _prepared(engine: Engine, stream_created: str) -> Position:
    with engine.connect() as connection:
        known = _known_position(connection)
    if known is not None and known.stream_created == stream_created:
        return known
    return _begun(engine, stream_created)


def _begun(engine: Engine, stream_created: str) -> Position:
    with engine.begin() as connection:
        if _known_position(connection) is None:
            schema.metadata.drop_all(connection)
            schema.metadata.create_all(connection)
        for table in schema.metadata.sorted_tables:
            connection.execute(table.delete())  # unlike dropping it, this disturbs no reader
        connection.execute(
            schema.position.insert().values(id=1, schema=schema.SCHEMA, stream_created=stream_created, sequence=0)
        )
    return Position(stream_created)


def _known_position(connection: Connection) -> Position | None:
    """The position, if there is an index of this schema."""
    if not inspect(connection).has_table(schema.position.name):
        return None
    columns = {each["name"] for each in inspect(connection).get_columns(schema.position.name)}
    return read_position(connection) if columns == set(schema.position.c.keys()) else None


def _replace_file(engine: Engine) -> bool:
    """Deletes the file of a broken SQLite database; returns whether it was one."""
    if engine.dialect.name != SQLITE or not engine.url.database:
        return False
    engine.dispose()
    for end in ("", "-wal", "-shm"):
        Path(engine.url.database + end).unlink(missing_ok=True)
    return True


def _tune_sqlite(connection: object, record: object) -> None:
    """Readers don't wait for the writer. A power cut may lose the last transactions, which are computed again."""
    cursor = connection.cursor()  # type: ignore[attr-defined]  # the driver's connection has no common type
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "cache_size=-65536", "temp_store=MEMORY"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
