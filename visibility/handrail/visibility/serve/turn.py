"""The time that the database works on one question: until its caller waits no more, or is gone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from threading import Lock

from sqlalchemy import Connection

from handrail.visibility.index.database import POSTGRESQL

log = logging.getLogger(__name__)

_PATIENCE = timedelta(seconds=5)
"""How long PostgreSQL may take to end a statement."""

_LOOK_EVERY = 500
"""Steps of SQLite's machine between two looks at the clock. A step may compare two long texts: some 0.1 ms."""


class Turn:
    """Begins when it is made, and lasts so long at most. Safe for several threads."""

    def __init__(self, longest: timedelta) -> None:
        self._ends_at = time.monotonic() + longest.total_seconds()
        self._ended = False
        self._lock = Lock()
        self._cancel: Callable[[], None] | None = None

    def is_over(self) -> bool:
        """Whether the time is up, or the turn was ended."""
        return self._ended or time.monotonic() > self._ends_at

    def end(self) -> None:
        """Ends it, and what the database is doing for it. PostgreSQL is told so over the network."""
        self._ended = True
        with self._lock:
            if self._cancel is not None:
                self._cancel_now(self._cancel)

    @contextmanager
    def bounding(self, connection: Connection) -> Iterator[None]:
        """A transaction that sees one state of the index, changes nothing, and is cut off when the turn is over."""
        driver = connection.connection.driver_connection
        assert driver is not None, "the connection is open"
        if connection.dialect.name == POSTGRESQL:
            left = max(1, round((self._ends_at - time.monotonic()) * 1000))
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {left}")
            self._set_cancel(partial(driver.cancel_safe, timeout=_PATIENCE.total_seconds()))
            try:
                yield
            finally:
                self._set_cancel(None)  # the connection is about to be another question's
            return
        driver.set_progress_handler(self.is_over, _LOOK_EVERY)
        try:
            connection.exec_driver_sql("BEGIN")
            yield
        finally:
            driver.set_progress_handler(None, 0)

    def _set_cancel(self, cancel: Callable[[], None] | None) -> None:
        with self._lock:
            self._cancel = cancel
            if cancel is not None and self._ended:
                self._cancel_now(cancel)

    @staticmethod
    def _cancel_now(cancel: Callable[[], None]) -> None:
        try:
            cancel()
        except Exception:
            log.warning("a statement that nobody waits for could not be ended: it ends with its time", exc_info=True)
