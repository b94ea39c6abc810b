"""The results of a run: breaches, how flows ended, and the recovery time after each fault."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from handrail.cli.verify.account import Account
from handrail.cli.verify.finding import Breach, Finding
from handrail.cli.verify.standing import OPEN, Standing
from handrail.v1.decision_pb2 import FlowStatus
from tests.chaos.history.faults import Fault
from tests.chaos.history.story import PARTS, Lot


@dataclass(frozen=True, slots=True)
class Recovery:
    """Seconds from the fault, or from the flow's later start, to the end of the flow that was delayed longest."""

    kind: str
    number: int
    middle: float
    longest: float


Accounts = Mapping[str, Account]
Standings = Mapping[str, Standing]

_MEASURED = (Lot.PLAIN, Lot.LARGE, Lot.FLAKY, Lot.HOPELESS)
"""Lots that take only a few seconds on their own: two approvals, two retries, or one undo."""


def wrong_ends(lots: Mapping[str, Lot], accounts: Accounts, standings: Standings) -> Iterator[Finding]:
    """Flows with an end that their lot does not allow: healthy work undone, or failed work not undone."""
    for flow_id, lot in lots.items():
        if flow_id not in standings:
            continue
        status = standings[flow_id].status
        if status not in (OPEN, *PARTS[lot].ends):
            text = f"a flow that is to be {lot} ended {FlowStatus.Name(status)[12:]}"
            yield Finding(Breach.WRONG, text, accounts[flow_id].flow_type, flow_id)


def recoveries(
    faults: Iterable[Fault], lots: Mapping[str, Lot], accounts: Accounts, standings: Standings
) -> list[Recovery]:
    """How long flows were delayed, by kind of fault."""
    spans = [
        (account.messages[0].time.timestamp(), account.messages[-1].time.timestamp())
        for flow_id, account in accounts.items()
        if lots.get(flow_id) in _MEASURED and standings[flow_id].status != OPEN
    ]
    taken: dict[str, list[float]] = defaultdict(list)
    for fault in faults:
        held = [end - max(begin, fault.since) for begin, end in spans if begin < fault.until and end > fault.since]
        taken[fault.kind].append(max(held, default=0.0))
    return [Recovery(kind, len(each), median(each), max(each)) for kind, each in sorted(taken.items())]


def table(rows: Sequence[Sequence[object]]) -> list[str]:
    """Formats rows with aligned columns; the first column to the left, the others to the right."""
    cells = [[f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(_padded(row, widths)) for row in cells]


def _padded(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    first, *others = zip(row, widths, strict=True)
    yield first[0].ljust(first[1])
    yield from (cell.rjust(width) for cell, width in others)
