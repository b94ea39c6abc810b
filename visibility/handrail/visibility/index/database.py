"""The database: opening it, and telling whether its index can be gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, Engine, Inspector, create_engine, event, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.schema import CreateSchema

from handrail.visibility.index import schema
from handrail.visibility.index.errors import index_error, refuse

SQLITE, POSTGRESQL = "sqlite", "postgresql"

_FOLDER = "handrail"
"""The schema of PostgreSQL in which the tables are, away from those of others."""

_APPLICATION = int.from_bytes(b"HRix")
"""The number in the head of a file of SQLite which says whose it is."""

_FORMS = "its address must be sqlite:///FILE or postgresql://USER@HOST/DATABASE"

_PATIENCE: Mapping[str, int] = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""How long PostgreSQL's client waits for a server that is silent: seconds, the last one milliseconds."""

_STATEMENT = "60s"
"""The longest that PostgreSQL works on a statement."""


@dataclass(frozen=True, slots=True)
class Position:
    """What the index covers: the stream created at `stream_created`, up to `sequence`, which was stored at `time`, and
    as many verdicts of the archive, as they were when this was read.
    """

    stream_created: str
    sequence: int = 0
    time: datetime | None = None
    verdicts: int = 0


def open_engine(address: str) -> Engine:
    """Returns an engine for `sqlite:///FILE` or `postgresql://USER@HOST/DATABASE`; connects to nothing.

    Raises INDEX_UNAVAILABLE if the address is none of these, or the file's folder is missing.
    """
    url = _url(address)
    if url.drivername == POSTGRESQL:
        return _open_postgresql(url)
    if not Path(str(url.database)).absolute().parent.is_dir():
        raise index_error(f"the folder of {url.database} does not exist: create it")
    engine = create_engine(url.set(drivername="sqlite+pysqlite"), connect_args={"timeout": 10})
    event.listen(engine, "connect", _tune_sqlite)
    return engine


def prepare(engine: Engine, stream_created: str) -> Position:
    """Creates the tables, or empties those that this index can't go on with; returns the position to go on from.

    These are of another schema or of another stream. Raises INDEX_UNAVAILABLE if the database can't be reached or
    written, if it holds what Handrail did not make, and once if the file of SQLite is broken: it is renamed.
    """
    try:
        with engine.connect() as connection:
            known = _known_position(connection)
    except SQLAlchemyError as error:
        refuse(error, engine)
    if known is not None and known.stream_created == stream_created:
        return known
    return begin_anew(engine, stream_created)


def check(engine: Engine, stream_created: str) -> None:
    """Raises INDEX_UNAVAILABLE like `prepare`, and if the database refuses to write."""
    prepare(engine, stream_created)
    try:
        with engine.begin() as connection:
            connection.execute(schema.position.update().values(sequence=schema.position.c.sequence))
    except SQLAlchemyError as error:
        refuse(error, engine)


def require(engine: Engine) -> None:
    """Raises INDEX_UNAVAILABLE unless there is an index of this schema, and the database takes writes."""
    try:
        with engine.begin() as connection:
            if _known_position(connection) is None:
                text = "the database has no index of this release: let handrail visibility begin one, and try again"
                raise index_error(text)
            connection.execute(schema.position.update().values(sequence=schema.position.c.sequence))
    except SQLAlchemyError as error:
        refuse(error, engine)


def begin_anew(engine: Engine, stream_created: str) -> Position:
    """Empties the index; returns the position to begin from. Raises INDEX_UNAVAILABLE as `prepare` does."""
    try:
        with engine.begin() as connection:
            _empty(connection)
            connection.execute(
                schema.position.insert().values(id=1, schema=schema.SCHEMA, stream_created=stream_created, sequence=0)
            )
    except SQLAlchemyError as error:
        refuse(error, engine)
    return Position(stream_created)


def read_position(connection: Connection) -> Position | None:
    """The position of an index of this schema; None if it has none."""
    row = connection.execute(select(schema.position).where(schema.position.c.schema == schema.SCHEMA)).one_or_none()
    return None if row is None else Position(row.stream_created, row.sequence, row.time, row.verdicts)


def _url(address: str) -> URL:
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        raise index_error(_FORMS) from None  # what was raised may print a part of the password
    if url.drivername == POSTGRESQL and address.count("@") > 1:
        raise index_error(f"{_FORMS}, and an '@' in the name or the password must be written %40")
    is_file = url.drivername == SQLITE and url.database not in (None, "", ":memory:") and not url.host
    if not is_file and url.drivername != POSTGRESQL:
        raise index_error(_FORMS)
    return url


def _open_postgresql(url: URL) -> Engine:
    patience = {name: value for name, value in _PATIENCE.items() if name not in url.query}
    given = " ".join(url.normalized_query.get("options", ()))
    options = f"-c statement_timeout={_STATEMENT} {given} -c search_path={_FOLDER}"
    connect_args = {**patience, "options": options}
    return create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True, connect_args=connect_args)


def _empty(connection: Connection) -> None:
    """Empties the tables of this schema, or makes them."""
    if connection.dialect.name == POSTGRESQL:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")  # emptying an old index takes its time
    if _known_position(connection) is None:
        _mark(connection)
        schema.metadata.drop_all(connection)
        schema.metadata.create_all(connection)
    # The position first: a writer changes it first, too, so that one of both waits, and finds what the other did.
    for table in (schema.position, *schema.metadata.sorted_tables):
        connection.execute(table.delete())  # unlike dropping it, this disturbs no reader


def _known_position(connection: Connection) -> Position | None:
    """The position, if there is an index of this schema. Raises INDEX_UNAVAILABLE if there are tables of others."""
    found = inspect(connection)
    tables = found.get_table_names()
    if tables and not _is_marked(connection, found):
        place = (
            f"the schema {_FOLDER}" if connection.dialect.name == POSTGRESQL else str(connection.engine.url.database)
        )
        raise index_error(f"{place} holds tables that Handrail did not make: give another database")
    if schema.position.name not in tables:
        return None
    columns = {each["name"] for each in found.get_columns(schema.position.name)}
    return read_position(connection) if columns == set(schema.position.c.keys()) else None


def _is_marked(connection: Connection, found: Inspector) -> bool:
    """Tells whether Handrail made the tables."""
    name = schema.position.name
    if connection.dialect.name == POSTGRESQL:
        return found.has_table(name) and found.get_table_comment(name)["text"] == schema.position.comment
    return connection.exec_driver_sql("PRAGMA application_id").scalar() == _APPLICATION


def _mark(connection: Connection) -> None:
    """Prepares the place for the tables. In SQLite, it says whose they are; in PostgreSQL, `position` says it."""
    if connection.dialect.name == SQLITE:
        connection.exec_driver_sql(f"PRAGMA application_id={_APPLICATION}")
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # readers don't wait for the writer
    elif not inspect(connection).has_schema(_FOLDER):
        connection.execute(CreateSchema(_FOLDER))


def _tune_sqlite(connection: object, record: object) -> None:
    """A power cut may lose the last transactions, which are computed again."""
    cursor = connection.cursor()  # type: ignore[attr-defined]  # the driver's connection has no common type
    for pragma in ("synchronous=NORMAL", "cache_size=-65536", "temp_store=MEMORY"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
