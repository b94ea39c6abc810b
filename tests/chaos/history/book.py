"""The ledger of the agents' effects outside the stream, and the invariants that it must satisfy."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from handrail.cli.verify.account import Account
from handrail.cli.verify.finding import Breach, Finding
from handrail.cli.verify.standing import OPEN, Standing
from handrail.v1.decision_pb2 import FlowStatus

_KEPT = {"pay": "RefundPaid", "back": "RefundReversed", "tell": "CustomerNotified"}


@dataclass(frozen=True, slots=True)
class Move:
    """One effect: `pay`, `back` or `tell`, and the change of the balance."""

    key: str
    flow_id: str
    what: str
    units: int


def create(path: Path) -> None:
    """Creates an empty ledger."""
    with closing(sqlite3.connect(path)) as book:
        book.execute("PRAGMA journal_mode = WAL")
        book.execute("CREATE TABLE moves (key TEXT PRIMARY KEY, flow_id TEXT, what TEXT, units INTEGER)")
        book.commit()


def read(path: Path) -> list[Move]:
    """All effects in the ledger."""
    with closing(sqlite3.connect(path)) as book:
        return [Move(*row) for row in book.execute("SELECT key, flow_id, what, units FROM moves")]


def discrepancies(
    moves: Iterable[Move], accounts: Mapping[str, Account], standings: Mapping[str, Standing]
) -> Iterator[Finding]:
    """Where the ledger contradicts the stream: money moved twice, moved without a fact, or not moved back."""
    by_flow: dict[str, list[Move]] = defaultdict(list)
    for move in moves:
        by_flow[move.flow_id].append(move)
    for flow_id, account in accounts.items():
        yield from _of_flow(account, standings[flow_id], by_flow.pop(flow_id, []))
    for flow_id, strangers in by_flow.items():
        yield Finding(Breach.WRONG, f"{len(strangers)} moves in the book, and no such flow", "refund", flow_id)


def _of_flow(account: Account, standing: Standing, moves: list[Move]) -> Iterator[Finding]:
    def found(breach: Breach, text: str) -> Finding:
        return Finding(breach, text, account.flow_type, account.flow_id)

    done = {what: [move for move in moves if move.what == what] for what in _KEPT}
    for what, several in done.items():
        if len(several) > 1:
            yield found(Breach.DOUBLED, f"{what} was done {len(several)} times, under {len(several)} keys")
    if standing.status == OPEN:
        return
    for what, name in _KEPT.items():
        said = sum(each.type.endswith(f".{name}") for each in account.messages if each.kind in ("event", "undone"))
        if len(done[what]) != said and not (what == "tell" and said < len(done[what])):
            yield found(Breach.WRONG, f"{what} was done {len(done[what])} times, and the stream has {said} {name}")
    balance = sum(move.units for move in moves)
    if standing.status in (FlowStatus.FLOW_STATUS_COMPENSATED, FlowStatus.FLOW_STATUS_CANCELLED) and balance:
        yield found(Breach.WRONG, f"its effects were undone, and {balance} is gone")
