"""Compares what callers were told with what is stored: a history from the clients' side.

A history is a file of JSON lines, one call each (`Call`). Any caller of the API may write one; `make chaos` does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields

from handrail.cli.verify.account import Account
from handrail.cli.verify.approvals import canonical
from handrail.cli.verify.finding import Breach, Finding
from handrail.cli.verify.rules import found
from handrail.cli.verify.standing import OPEN, Standing
from handrail.v1.decision_pb2 import ApprovalGiven, ApprovalRefused, FlowHalted, FlowStatus, HaltMode, Resolved

START, APPROVE, REJECT, CANCEL, COMPENSATE, RESOLVE = "start", "approve", "reject", "cancel", "compensate", "resolve"
OK, REFUSED, UNKNOWN = "ok", "refused", "unknown"

_NEEDED = frozenset({"op", "outcome", "at", "ended", "by", "flow_type"})
_TYPES: Mapping[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call and its result: `ok` was acknowledged, `refused` was not done, `unknown` got no answer.

    `at` and `ended` are seconds since 1970 by the caller's clock. `by` is the caller. A start has key (or none), event
    and sequence from the answer; a vote has the approval; an answer to an escalation has its id as `subject`.
    """

    op: str
    outcome: str
    at: float
    ended: float
    by: str
    flow_type: str
    flow_id: str = ""
    key: str = ""
    event_id: str = ""
    sequence: int = 0
    subject: str = ""
    detail: str = ""

    def line(self) -> str:
        """Returns the call as a line of a history."""
        return json.dumps({name: value for name, value in asdict(self).items() if value not in ("", 0)})


def parse(line: str) -> Call:
    """Parses a line of a history; raises ValueError if it is invalid."""
    said = json.loads(line)
    kinds = {each.name: str(each.type) for each in fields(Call)}
    if not isinstance(said, dict) or not _NEEDED <= said.keys() <= kinds.keys():
        raise ValueError(f"it is not a call: it needs {', '.join(sorted(_NEEDED))}, and may have {', '.join(kinds)}")
    for name, value in said.items():
        if not isinstance(value, _TYPES[kinds[name]]) or isinstance(value, bool):
            raise ValueError(f"its {name} must be {kinds[name]}")
    return Call(**said)


def broken_promises(
    calls: Iterable[Call], accounts: Mapping[str, Account], standings: Mapping[str, Standing]
) -> Iterator[Finding]:
    """Yields what was acknowledged but is missing, or has no consequence; accounts are keyed by flow id."""
    begun: dict[tuple[str, str], str] = {}
    for call in calls:
        if call.outcome != OK:
            continue
        account = accounts.get(call.flow_id)
        if account is None or account.first is None:
            text = f"{call.op} by {call.by} was acknowledged, but no such flow exists"
            yield Finding(Breach.LOST, text, call.flow_type, call.flow_id)
            continue
        if call.op == START:
            yield from _start(call, account, begun)
        elif not _recorded(call, account):
            yield found(account, Breach.LOST, f"{call.op} by {call.by} was acknowledged, but is not in the stream")
        elif call.op in _ENDS and not account.unsure:
            status = standings[call.flow_id].status
            if status not in (OPEN, *_ENDS[call.op]):
                text = f"{call.op} by {call.by} was acknowledged, but the flow is {FlowStatus.Name(status)[12:]}"
                yield found(account, Breach.LOST, text)


_ENDS = {
    CANCEL: (FlowStatus.FLOW_STATUS_CANCELLED, FlowStatus.FLOW_STATUS_COMPENSATED),
    COMPENSATE: (FlowStatus.FLOW_STATUS_COMPENSATED, FlowStatus.FLOW_STATUS_CANCELLED),
}
"""The possible ends of a flow after each decision: an earlier halt of the other kind takes precedence."""

_MODES = {CANCEL: HaltMode.HALT_MODE_CANCEL, COMPENSATE: HaltMode.HALT_MODE_COMPENSATE}


def _start(call: Call, account: Account, begun: dict[tuple[str, str], str]) -> Iterator[Finding]:
    assert account.first is not None
    if call.event_id and call.event_id not in (each.event_id for each in account.messages):
        yield found(account, Breach.LOST, f"the start by {call.by} was acknowledged, but its event is missing")
    elif call.sequence and call.sequence not in (each.sequence for each in account.messages):
        yield found(
            account, Breach.LOST, f"the start by {call.by} was acknowledged at {call.sequence}, but it is empty"
        )
    if call.key:
        first = begun.setdefault((call.flow_type, call.key), call.flow_id)
        if first != call.flow_id:
            yield found(account, Breach.DOUBLED, f"key {call.key} started this flow and {first}")


def _recorded(call: Call, account: Account) -> bool:
    if call.op in (APPROVE, REJECT):
        message = ApprovalGiven if call.op == APPROVE else ApprovalRefused
        votes = (message.FromString(each.data) for each in account.decisions(message))
        voted = call.subject.rpartition(".")[2], canonical(call.by)
        return any((vote.proposal_id, canonical(vote.voter)) == voted for vote in votes)
    if call.op in _MODES:
        halts = (FlowHalted.FromString(each.data) for each in account.decisions(FlowHalted))
        return any(halt.mode == _MODES[call.op] for halt in halts)
    if call.op == RESOLVE:
        answers = (Resolved.FromString(each.data) for each in account.decisions(Resolved))
        return any(answer.escalation_id == call.subject for answer in answers)
    return True
