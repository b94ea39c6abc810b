"""The register of approvals: a SQLite file. Every approval and every withdrawal has an idempotency key."""

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from demos.stage.transactions import transaction

SCHEMA = """
CREATE TABLE IF NOT EXISTS approvals (
    approval_id     TEXT PRIMARY KEY,
    idempotency_key TEXT NOT NULL UNIQUE,
    distribution    TEXT NOT NULL,  -- name==version@environment
    fingerprint     TEXT NOT NULL,  -- of the approved files
    remarks         TEXT NOT NULL,  -- the failed checks, as a JSON list
    time            TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS withdrawals (
    approval_id     TEXT PRIMARY KEY REFERENCES approvals,  -- an approval is withdrawn at most once
    idempotency_key TEXT NOT NULL UNIQUE,
    time            TEXT NOT NULL
) STRICT;
"""


class RegisterError(Exception):
    """The register refuses an entry, and would refuse it again: a retry can't help."""


@dataclass(frozen=True, slots=True)
class Approval:
    """An approval. `distribution` is `name==version@environment`; `remarks` are the failed checks."""

    approval_id: str
    distribution: str
    fingerprint: str
    remarks: tuple[str, ...]


class Register:
    """Approvals in a file that any number of processes may share.

    Each method that changes something is one transaction, committed with its key before the method returns. A second
    call with the same key returns the stored entry.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with transaction(path) as connection:
            for statement in SCHEMA.split(";\n"):
                connection.execute(statement)

    def approve(self, *, key: str, distribution: str, fingerprint: str, remarks: Sequence[str]) -> Approval:
        """Writes an approval, once per key.

        Raises:
            RegisterError: if the key belongs to another approval.
        """
        wanted = Approval(_approval_id(key), distribution, fingerprint, tuple(remarks))
        with transaction(self._path) as connection:
            stored = _select(connection, "idempotency_key = ?", key)
            if not stored:
                connection.execute(
                    "INSERT INTO approvals VALUES (?, ?, ?, ?, ?, ?)",
                    (wanted.approval_id, key, distribution, fingerprint, json.dumps(list(remarks)), _now()),
                )
            elif stored != [wanted]:
                raise RegisterError(f"idempotency key {key} belongs to {stored[0]}, not to {wanted}")
        return wanted

    def withdraw(self, *, key: str, approval_id: str) -> None:
        """Withdraws an approval, once, even for different keys.

        Raises:
            RegisterError: if the approval is not in the register.
        """
        with transaction(self._path) as connection:
            if not _select(connection, "approval_id = ?", approval_id):
                raise RegisterError(f"approval {approval_id} is not in the register: nothing to withdraw")
            connection.execute(
                "INSERT INTO withdrawals VALUES (?, ?, ?) ON CONFLICT (approval_id) DO NOTHING",
                (approval_id, key, _now()),
            )

    def approvals(self) -> list[Approval]:
        """All approvals, withdrawn or not, oldest first."""
        with transaction(self._path) as connection:
            return _select(connection, "TRUE")

    def withdrawn(self) -> frozenset[str]:
        """The ids of the approvals that were withdrawn."""
        with transaction(self._path) as connection:
            return frozenset(id_ for (id_,) in connection.execute("SELECT approval_id FROM withdrawals"))


def _approval_id(key: str) -> str:
    """The id of the approval with this key, derived from the key alone."""
    return "ap-" + hashlib.sha256(key.encode()).hexdigest()[:24]


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _select(connection: sqlite3.Connection, condition: str, *values: str) -> list[Approval]:
    columns = "approval_id, distribution, fingerprint, remarks"
    rows = connection.execute(f"SELECT {columns} FROM approvals WHERE {condition} ORDER BY rowid", values)
    return [Approval(row[0], row[1], row[2], tuple(json.loads(row[3]))) for row in rows]
