"""Agents that are killed at the worst moment, for processes of their own.

`ledger` is the demo's, with its book in SQLite. The file that CRASHES names holds moments, one a line: each process
that gets there takes the first of them away and dies of it.

    before pay, after pay, before reverse, after reverse   before or after the book's commit: nothing is published yet
    always pay                                             stays in the file
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from demos.payments import ledger as demo
from demos.payments.book import Book, Transfer

ledger = demo.agent


def _die_where_told(moment: str) -> None:
    path = Path(os.environ["CRASHES"])
    first, *others = path.read_text().splitlines() or [""]
    if first == moment:
        path.write_text("\n".join(others))
    if first in (moment, f"always {moment.partition(' ')[2]}"):
        os.kill(os.getpid(), signal.SIGKILL)


def _crashing(name: str, method: Callable[..., Transfer]) -> Callable[..., Transfer]:
    def call(book: Book, **arguments: object) -> Transfer:
        _die_where_told(f"before {name}")
        transfer = method(book, **arguments)
        _die_where_told(f"after {name}")
        return transfer

    return call


Book.pay = _crashing("pay", Book.pay)  # type: ignore[method-assign]
Book.reverse = _crashing("reverse", Book.reverse)  # type: ignore[method-assign]
