"""Transactions on a SQLite file that agents share, each the whole of a change and of the key that guards it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

# A writer holds the file for the length of one small transaction; one who waits this long has met a stuck process.
LOCK_WAIT = timedelta(seconds=10)


@contextmanager
def transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of its own for each transaction: any thread may ask, and nothing stays open.

    IMMEDIATE takes the write lock before the first read, so that two processes that ask for the same key come one after
    the other.
    """
    connection = sqlite3.connect(path, timeout=LOCK_WAIT.total_seconds(), isolation_level=None)
    with closing(connection):
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
