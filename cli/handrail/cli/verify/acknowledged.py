"""What callers were told, against what is there: a history from the clients' side.

A history is a file of JSON lines, one call each (`Call`). Whoever calls the API may write one; `make chaos` does.
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
    """One call and how it ended: `ok` was acknowledged, `refused` was not done, `unknown` got no answer.

    `at` and `ended` are seconds since 1970 by the caller's clock. `by` is who called. A start has key (or none), event
    and sequence as they were answered; a vote the approval; an answer to an escalation its id as `subject`.
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
        """The call as a line of a history."""
        return json.dumps({name: value for name, value in asdict(self).items() if value not in ("", 0)})


def parse(line: str) -> Call:
    """A line of a history; ValueError where it is none."""
    said = json.loads(line)
    kinds = {each.name: str(each.type) for each in fields(Call)}
    if not isinstance(said, dict) or not _NEEDED <= said.keys() <= kinds.keys():
        raise ValueError(f"it is no call: it needs {', '.join(sorted(_NEEDED))}, and may have {', '.join(kinds)}")
    for name, value in said.items():
        if not isinstance(value, _TYPES[kinds[name]]) or isinstance(value, bool):
            raise ValueError(f"its {name} is no {kinds[name]}")
    return Call(**said)


def broken_promises(
    calls: Iterable[Call], accounts: Mapping[str, Account], standings: Mapping[str, Standing]
) -> Iterator[Finding]:
    """What was acknowledged and is not there, or has no consequence; by flow id."""
    begun: dict[tuple[str, str], str] = {}
    for call in calls:
        if call.outcome != OK:
            continue
        account = accounts.get(call.flow_id)
        if account is None or account.first is None:
            text = f"{call.op} by {call.by} was acknowledged, and there is no such flow"
            yield Finding(Breach.LOST, text, call.flow_type, call.flow_id)
            continue
        if call.op == START:
            yield from _start(call, account, begun)
        elif not _recorded(call, account):
            yield found(account, Breach.LOST, f"{call.op} by {call.by} was acknowledged, and is not in the stream")
        elif call.op in _ENDS and not account.unsure:
            status = standings[call.flow_id].status
            if status not in (OPEN, *_ENDS[call.op]):
                text = f"{call.op} by {call.by} was acknowledged, and the flow is {FlowStatus.Name(status)[12:]}"
                yield found(account, Breach.LOST, text)


_ENDS = {
    CANCEL: (FlowStatus.FLOW_STATUS_CANCELLED, FlowStatus.FLOW_STATUS_COMPENSATED),
    COMPENSATE: (FlowStatus.FLOW_STATUS_COMPENSATED, FlowStatus.FLOW_STATUS_CANCELLED),
}
"""How a flow may end after that: an earlier halt of the other kind stays."""

_MODES = {CANCEL: HaltMode.HALT_MODE_CANCEL, COMPENSATE: HaltMode.HALT_MODE_COMPENSATE}


def _start(call: Call, account: Account, begun: dict[tuple[str, str], str]) -> Iterator[Finding]:
    assert account.first is not None
    if call.event_id and call.event_id not in (each.event_id for each in account.messages):
        yield found(account, Breach.LOST, f"the start by {call.by} was acknowledged, and its event is not there")
    elif call.sequence and call.sequence not in (each.sequence for each in account.messages):
        yield found(
            account, Breach.LOST, f"the start by {call.by} was acknowledged at {call.sequence}: nothing is there"
        )
    if call.key:
        first = begun.setdefault((call.flow_type, call.key), call.flow_id)
        if first != call.flow_id:
            yield found(account, Breach.DOUBLED, f"key {call.key} has begun this flow and {first}")


def _recorded(call: Call, account: Account) -> bool:
    if call.op in (APPROVE, REJECT):
        message = ApprovalGiven if call.op == APPROVE else ApprovalRefused
        votes = (message.FromString(each.data) for each in account.decisions(message))
        return any((vote.proposal_id, canonical(vote.voter)) == (call.subject, canonical(call.by)) for vote in votes)
    if call.op in _MODES:
        halts = (FlowHalted.FromString(each.data) for each in account.decisions(FlowHalted))
        return any(halt.mode == _MODES[call.op] for halt in halts)
    if call.op == RESOLVE:
        answers = (Resolved.FromString(each.data) for each in account.decisions(Resolved))
        return any(answer.escalation_id == call.subject for answer in answers)
    return True
