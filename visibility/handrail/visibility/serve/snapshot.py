"""Runs questions against one state of the index: few at a time, and none longer than its caller waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.visibility.index.database import POSTGRESQL, Position, read_position
from handrail.visibility.index.errors import index_error, said_by
from handrail.visibility.retention.shelf_mark import ShelfMark

AT_ONCE = 4
"""How many questions the database works on at the same time."""

_LONGEST = timedelta(seconds=10)
_LOOK_EVERY = 500
"""Steps of SQLite's machine between two looks at the clock. A step may compare two long texts: some 0.1 ms."""

_INTERRUPTED = "interrupted"
_CANCELLED = "57014"

Answer = TypeVar("Answer")
Question = Callable[[Connection, Position], Answer]
"""Reads the index, whose state is the one of the position."""


class Snapshots:
    """Answers questions in threads of its own."""

    def __init__(self, engine: Engine, mark: ShelfMark | None = None, *, at_once: int = AT_ONCE) -> None:
        self._engine = engine
        self._mark = mark
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="index")

    async def ask(self, question: Question[Answer], patience: timedelta) -> Answer:
        """Returns the answer.

        Raises INDEX_UNAVAILABLE if the database can't be read, has no index yet, or one that lacks archived flows, and
        DEADLINE_EXCEEDED after `patience`, waiting for a thread included.
        """
        ends_at = time.monotonic() + min(patience, _LONGEST).total_seconds()
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, question, ends_at)

    def close(self) -> None:
        """Lets go of the threads. A question that is being answered ends with its patience."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answer(self, question: Question[Answer], ends_at: float) -> Answer:
        left = ends_at - time.monotonic()
        if left <= 0:
            raise _too_slow()
        try:
            with self._engine.connect() as connection, _bounded(connection, left):
                position = read_position(connection)
                if position is None:
                    raise index_error("the index is being made; ask again shortly")
                if self._mark is not None and not self._mark.has_all(position.verdicts):
                    text = f"archived flows are still being taken into the index, {position.verdicts} are; ask later"
                    raise index_error(text)
                return question(connection, position)
        except SQLAlchemyError as error:
            if _is_interrupted(error):
                raise _too_slow() from None
            raise index_error(said_by(error)) from error


@contextmanager
def _bounded(connection: Connection, seconds: float) -> Iterator[None]:
    """A transaction that sees one state of the index, changes nothing, and is cut off after this time."""
    if connection.dialect.name == POSTGRESQL:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, int(seconds * 1000))}")
        yield
        return
    driver = connection.connection.driver_connection
    assert driver is not None, "the connection is open"
    ends_at = time.monotonic() + seconds
    driver.set_progress_handler(lambda: time.monotonic() > ends_at, _LOOK_EVERY)
    try:
        connection.exec_driver_sql("BEGIN")
        yield
    finally:
        driver.set_progress_handler(None, 0)


def _is_interrupted(error: SQLAlchemyError) -> bool:
    said = error.orig if isinstance(error, DBAPIError) else None
    return str(said) == _INTERRUPTED or getattr(said, "sqlstate", None) == _CANCELLED


def _too_slow() -> HandrailError:
    return HandrailError(
        ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED,
        "the index is too slow for this filter: name a status, a flow type or a time (docs/filters.md, What is fast)",
    )
