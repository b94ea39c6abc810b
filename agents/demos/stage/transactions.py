"""Transactions on a SQLite file that agents share. A change and its idempotency key are one transaction."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

# A writer locks the file for one small transaction; a longer wait means that another process is stuck.
LOCK_WAIT = timedelta(seconds=10)


@contextmanager
def transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """Opens a new connection for each transaction: any thread may call it, and nothing stays open.

    IMMEDIATE takes the write lock before the first read, so that two processes with the same key run one after the
    other.
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
