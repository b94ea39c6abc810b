"""The ledger's book: a double-entry ledger in a SQLite file. Every transfer has an idempotency key."""

import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from demos.payments.money import Amount
from demos.stage.transactions import transaction

COMPANY = "company:refunds"
"""The account that pays the refunds."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS transfers (
    transfer_id     TEXT PRIMARY KEY,
    idempotency_key TEXT NOT NULL UNIQUE,
    chargeback_id   TEXT NOT NULL,
    reverses        TEXT UNIQUE REFERENCES transfers,  -- NULL for a refund: a transfer is reversed at most once
    time            TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS transfers_by_chargeback ON transfers (chargeback_id);
CREATE TABLE IF NOT EXISTS postings (
    transfer_id TEXT NOT NULL REFERENCES transfers,
    account     TEXT NOT NULL,
    currency    TEXT NOT NULL,
    units       INTEGER NOT NULL,  -- whole units, and
    nanos       INTEGER NOT NULL,  -- billionths, with the same sign: as google.type.Money
    PRIMARY KEY (transfer_id, account)
) STRICT;
"""


class BookError(Exception):
    """The book refuses a transfer, and would refuse it again: a retry can't help."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Money that moved from the company's account to a customer's, or back.

    `amount` is the change of the customer's account: negative for a reversal. `reverses` is the id of the reversed
    transfer; None for a refund.
    """

    transfer_id: str
    chargeback_id: str
    account: str
    amount: Amount
    reverses: str | None


@dataclass(frozen=True, slots=True)
class Posting:
    """One half of a transfer: the change of one account."""

    transfer_id: str
    account: str
    amount: Amount


def customer_account(account_id: str) -> str:
    """The account of a customer in the book; its prefix keeps it apart from the company's."""
    return f"customer:{account_id}"


class Book:
    """A double-entry ledger in a file that any number of processes may share.

    Every transfer is one transaction, committed before its method returns. A second call with the same key returns the
    stored transfer. So a crash after the commit only costs the repeated call.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with transaction(self._path) as connection:
            for statement in SCHEMA.split(";\n"):
                connection.execute(statement)

    def pay(self, *, key: str, chargeback_id: str, account_id: str, amount: Amount) -> Transfer:
        """Moves money from the company to the customer, once per key.

        Raises:
            BookError: if the amount is not positive, or the key belongs to another transfer.
        """
        if amount.nanos <= 0:
            raise BookError(f"chargeback {chargeback_id}: a refund of {amount} moves no money to the customer")
        wanted = Transfer(_transfer_id(key), chargeback_id, customer_account(account_id), amount, None)
        with transaction(self._path) as connection:
            return self._stored(connection, key, wanted) or self._store(connection, key, wanted)

    def reverse(self, *, key: str, transfer_id: str) -> Transfer:
        """Reverses a transfer, once per transfer, even for different keys.

        Raises:
            BookError: if the transfer is not in the book or is itself a reversal, or the key belongs to another one.
        """
        with transaction(self._path) as connection:
            paid = _find(connection, "transfer_id = ?", transfer_id)
            if paid is None:
                raise BookError(f"transfer {transfer_id} is not in the book: nothing to reverse")
            if paid.reverses is not None:
                raise BookError(f"transfer {transfer_id} is itself a reversal: it can't be reversed")
            wanted = Transfer(_transfer_id(key), paid.chargeback_id, paid.account, -paid.amount, transfer_id)
            return (
                self._stored(connection, key, wanted)
                or _find(connection, "reverses = ?", transfer_id)
                or self._store(connection, key, wanted)
            )

    def transfers(self) -> list[Transfer]:
        """All transfers, oldest first."""
        with transaction(self._path) as connection:
            return list(_select(connection, "TRUE"))

    def postings(self) -> list[Posting]:
        """All postings, by transfer, oldest first."""
        with transaction(self._path) as connection:
            rows = connection.execute(
                "SELECT transfer_id, account, currency, units, nanos FROM postings JOIN transfers USING (transfer_id)"
                " ORDER BY transfers.rowid, account"
            )
            return [Posting(id_, account, Amount.from_parts(*amount)) for id_, account, *amount in rows]

    @staticmethod
    def _stored(connection: sqlite3.Connection, key: str, wanted: Transfer) -> Transfer | None:
        stored = _find(connection, "idempotency_key = ?", key)
        if stored is not None and stored != wanted:
            raise BookError(f"idempotency key {key} belongs to {stored}, not to {wanted}")
        return stored

    @staticmethod
    def _store(connection: sqlite3.Connection, key: str, transfer: Transfer) -> Transfer:
        connection.execute(
            "INSERT INTO transfers VALUES (?, ?, ?, ?, ?)",
            (transfer.transfer_id, key, transfer.chargeback_id, transfer.reverses, datetime.now(UTC).isoformat()),
        )
        connection.executemany(
            "INSERT INTO postings VALUES (?, ?, ?, ?, ?)",
            [
                (transfer.transfer_id, account, amount.currency, *amount.parts)
                for account, amount in ((transfer.account, transfer.amount), (COMPANY, -transfer.amount))
            ],
        )
        return transfer


def _transfer_id(key: str) -> str:
    """The id of the transfer with this key, derived from the key alone."""
    return "tr-" + hashlib.sha256(key.encode()).hexdigest()[:24]


def _find(connection: sqlite3.Connection, condition: str, value: str) -> Transfer | None:
    return next(_select(connection, condition, value), None)


def _select(connection: sqlite3.Connection, condition: str, *values: str) -> Iterator[Transfer]:
    rows = connection.execute(
        "SELECT transfer_id, chargeback_id, account, reverses, currency, units, nanos"
        " FROM transfers JOIN postings USING (transfer_id)"
        f" WHERE account <> ? AND {condition} ORDER BY transfers.rowid",
        (COMPANY, *values),
    )
    for transfer_id, chargeback_id, account, reverses, *amount in rows:
        yield Transfer(transfer_id, chargeback_id, account, Amount.from_parts(*amount), reverses)
