"""The ledger's book moves money once per key (P8), takes it back once, and balances."""

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from demos.payments.book import COMPANY, Book, BookError, Transfer
from demos.payments.money import Amount

EUR = Amount.from_parts("EUR", 12, 340_000_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def pay(book: Book, key: str = "key", chargeback_id: str = "cb-1", amount: Amount = EUR) -> Transfer:
    return book.pay(key=key, chargeback_id=chargeback_id, account_id="acct-1", amount=amount)


def balances(book: Book) -> Counter[tuple[str, str]]:
    """What every account holds of every currency; accounts that hold nothing are left out."""
    totals: Counter[tuple[str, str]] = Counter()
    for posting in book.postings():
        totals[posting.account, posting.amount.currency] += posting.amount.nanos
    return Counter({account: nanos for account, nanos in totals.items() if nanos})


def test_a_refund_moves_money_from_the_company_to_the_customer(path: Path) -> None:
    book = Book(path)
    transfer = pay(book)
    assert book.transfers() == [transfer]
    assert balances(book) == {(COMPANY, "EUR"): -EUR.nanos, ("customer:acct-1", "EUR"): EUR.nanos}


def test_p8_the_same_key_moves_money_once(path: Path) -> None:
    first = pay(Book(path))
    assert pay(Book(path)) == first
    assert Book(path).transfers() == [first]


def test_p8_the_same_key_asked_for_at_once_moves_money_once(path: Path) -> None:
    books = [Book(path) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(pay, books))) == 1
    assert len(books[0].transfers()) == 1


def test_p8_a_process_killed_before_its_commit_moves_nothing_and_after_it_moves_once(path: Path) -> None:
    Book(path)
    program = """
import os, signal, sys
from pathlib import Path
from demos.payments.book import Book
from demos.payments.money import Amount
moment, path = sys.argv[1:]
def kill(*_): os.kill(os.getpid(), signal.SIGKILL)
if moment == "before":
    store = Book._store
    Book._store = staticmethod(lambda *arguments: kill(store(*arguments)))
Book(Path(path)).pay(key="key", chargeback_id="cb-1", account_id="acct-1", amount=Amount("EUR", 12_340_000_000))
kill()
"""
    for moment, transfers in (("before", 0), ("after", 1)):
        killed = subprocess.run([sys.executable, "-c", program, moment, str(path)], check=False)
        assert killed.returncode < 0
        assert len(Book(path).transfers()) == transfers
    assert [pay(Book(path))] == Book(path).transfers()


def test_a_key_that_stands_for_another_transfer_is_refused(path: Path) -> None:
    book = Book(path)
    transfer = pay(book)
    with pytest.raises(BookError, match="belongs to"):
        pay(book, amount=Amount("EUR", 1))
    with pytest.raises(BookError, match="belongs to"):
        book.reverse(key="key", transfer_id=transfer.transfer_id)
    assert book.transfers() == [transfer]


@pytest.mark.parametrize("nanos", [0, -1])
def test_a_refund_of_nothing_or_less_is_refused(path: Path, nanos: int) -> None:
    with pytest.raises(BookError, match="cb-1"):
        pay(Book(path), amount=Amount("EUR", nanos))


def test_a_reversal_takes_the_money_back_once_whoever_asks(path: Path) -> None:
    book = Book(path)
    paid = pay(book)
    reversal = book.reverse(key="undo", transfer_id=paid.transfer_id)
    assert reversal.reverses == paid.transfer_id
    assert book.reverse(key="undo", transfer_id=paid.transfer_id) == reversal
    assert book.reverse(key="another", transfer_id=paid.transfer_id) == reversal
    assert book.transfers() == [paid, reversal]
    assert balances(book) == {}


def test_a_late_copy_of_a_payment_that_was_reversed_moves_nothing(path: Path) -> None:
    book = Book(path)
    paid = pay(book)
    book.reverse(key="undo", transfer_id=paid.transfer_id)
    assert pay(book) == paid
    assert balances(book) == {}


def test_what_is_not_in_the_book_or_a_reversal_is_not_reversed(path: Path) -> None:
    book = Book(path)
    with pytest.raises(BookError, match="tr-none"):
        book.reverse(key="undo", transfer_id="tr-none")
    reversal = book.reverse(key="undo", transfer_id=pay(book).transfer_id)
    with pytest.raises(BookError, match="itself a reversal"):
        book.reverse(key="again", transfer_id=reversal.transfer_id)


def test_the_file_itself_holds_every_transfer_once(path: Path) -> None:
    # What the book promises does not rest on its own code alone: another program is refused as well.
    paid = pay(Book(path))
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="idempotency_key"):
        connection.execute("INSERT INTO transfers VALUES ('tr-2', 'key', 'cb-1', NULL, '')")
    connection.execute("INSERT INTO transfers VALUES ('tr-3', 'k3', 'cb-1', ?, '')", (paid.transfer_id,))
    with pytest.raises(sqlite3.IntegrityError, match="reverses"):
        connection.execute("INSERT INTO transfers VALUES ('tr-4', 'k4', 'cb-1', ?, '')", (paid.transfer_id,))
    connection.close()


class BookMachine(RuleBasedStateMachine):
    """Payments, repeats, reversals and restarts in any order, beside a model of what each customer should hold."""

    payments = Bundle("payments")

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp()) / "ledger.sqlite"
        self.book = Book(self.path)
        self.held: Counter[tuple[str, str]] = Counter()
        self.reversed: set[str] = set()
        self.number = 0

    @rule(
        target=payments,
        account=st.sampled_from(["a", "b", "refunds"]),
        currency=st.sampled_from(["EUR", "USD"]),
        nanos=st.integers(1, 2**63),
    )
    def pay(self, account: str, currency: str, nanos: int) -> tuple[str, str, Amount, Transfer]:
        self.number += 1
        key, amount = f"key-{self.number}", Amount(currency, nanos)
        transfer = self.book.pay(key=key, chargeback_id="cb", account_id=account, amount=amount)
        self.held[f"customer:{account}", currency] += nanos
        self.held[COMPANY, currency] -= nanos
        return key, account, amount, transfer

    @rule(payment=payments)
    def pay_again(self, payment: tuple[str, str, Amount, Transfer]) -> None:
        key, account, amount, transfer = payment
        assert self.book.pay(key=key, chargeback_id="cb", account_id=account, amount=amount) == transfer

    @rule(payment=payments, undo=st.integers(1, 3))
    def reverse(self, payment: tuple[str, str, Amount, Transfer], undo: int) -> None:
        key, _, amount, transfer = payment
        self.book.reverse(key=f"{key}-undo-{undo}", transfer_id=transfer.transfer_id)
        if transfer.transfer_id not in self.reversed:
            self.reversed.add(transfer.transfer_id)
            self.held[transfer.account, amount.currency] -= amount.nanos
            self.held[COMPANY, amount.currency] += amount.nanos

    @rule()
    def restart(self) -> None:
        self.book = Book(self.path)

    @invariant()
    def every_account_holds_what_it_should(self) -> None:
        found = balances(self.book)
        assert found == Counter({account: nanos for account, nanos in self.held.items() if nanos})
        for currency in ("EUR", "USD"):
            assert sum(nanos for (_, code), nanos in found.items() if code == currency) == 0

    def teardown(self) -> None:
        os.unlink(self.path)
        self.path.parent.rmdir()


TestBookMachine = BookMachine.TestCase
TestBookMachine.settings = settings(max_examples=20, stateful_step_count=15)
