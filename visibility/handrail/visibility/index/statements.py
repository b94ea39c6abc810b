"""Statements that take many rows at once: SQLite prepares one and runs it for each row; PostgreSQL takes an array for
each column.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, Dialect, Table

from handrail.visibility.index.changes import Values
from handrail.visibility.index.database import POSTGRESQL


class Statements:
    """Statements for the tables of the index, in the dialect of one database."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._takes_arrays = dialect.name == POSTGRESQL

    def add(self, connection: Connection, table: Table, rows: Sequence[Values]) -> None:
        """Inserts rows; those that are there stay as they are."""
        self._insert(connection, table, rows, "DO NOTHING")

    def replace(self, connection: Connection, table: Table, rows: Sequence[Values], *, but: Collection[str]) -> None:
        """Inserts rows, or replaces those with the same key; their columns `but` stay as they are."""
        keys = [column.name for column in table.primary_key]
        changed = [column.name for column in table.c if column.name not in (*keys, *but)]
        update = ", ".join(f"{name} = excluded.{name}" for name in changed)
        self._insert(connection, table, rows, f"({', '.join(keys)}) DO UPDATE SET {update}")

    def increase(self, connection: Connection, table: Table, rows: Sequence[Values]) -> None:
        """Inserts rows, or adds their numbers to those with the same key."""
        keys = [column.name for column in table.primary_key]
        numbers = [column.name for column in table.c if column.name not in keys]
        update = ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in numbers)
        self._insert(connection, table, rows, f"({', '.join(keys)}) DO UPDATE SET {update}")

    def delete(self, connection: Connection, table: Table, firsts: Sequence[int]) -> None:
        """Deletes the rows of flows."""
        if not firsts:
            return
        start = f"DELETE FROM {table.name} WHERE first_sequence = "  # names of own tables
        if self._takes_arrays:
            connection.exec_driver_sql(start + "ANY(%s::bigint[])", (list(firsts),))
        else:
            connection.exec_driver_sql(start + "?", [(first,) for first in firsts])

    def _insert(self, connection: Connection, table: Table, rows: Sequence[Values], conflict: str) -> None:
        if not rows:
            return
        names = ", ".join(column.name for column in table.c)
        start = f"INSERT INTO {table.name} ({names}) "  # names of own tables
        if self._takes_arrays:
            types = (column.type.compile(self._dialect) for column in table.c)
            arrays = ", ".join(f"%s::{each}[]" for each in types)
            text = f"{start}SELECT * FROM unnest({arrays}) ON CONFLICT {conflict}"
            connection.exec_driver_sql(text, tuple(map(list, zip(*rows, strict=True))))
        else:
            values = ", ".join("?" * len(table.c))
            connection.exec_driver_sql(f"{start}VALUES ({values}) ON CONFLICT {conflict}", list(rows))
