"""Approvals as rows, in views: mine, of a role of mine, all. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.json_format import MessageToDict

from handrail.console.approvals.voter import Standing, Voter
from handrail.console.flow.money import only_amount
from handrail.console.flow.states import short_type
from handrail.v1.flow_service_pb2 import Approval

MINE, ALL = "mine", "all"
ROLE = "role:"
"""The view of a role is this and its name."""

SOON = timedelta(hours=1)
"""What is due within this time is marked."""


@dataclass(frozen=True, slots=True)
class Row:
    """An approval in a list. `what` is what is proposed, without its package; `votes` is `1/2`, of its largest gate."""

    approval: Approval
    standing: Standing
    what: str
    amount: str
    votes: str
    asked: datetime
    due: datetime | None
    is_soon: bool


@dataclass(frozen=True, slots=True)
class View:
    """A part of the list, with its number of approvals."""

    key: str
    label: str
    rows: Sequence[Row]


def rows(approvals: Iterable[Approval], voter: Voter, now: datetime) -> list[Row]:
    """The approvals as rows: what is due first; then what waits the longest."""
    found = [_row(each, voter.standing(each), now) for each in approvals]
    return sorted(found, key=lambda row: (row.due is None, row.due or row.asked, row.asked))


def views(found: Sequence[Row], voter: Voter) -> list[View]:
    """What waits for this person, for each role of theirs, and for anybody."""
    held = sorted({role.name for role in voter.roles})
    of_roles = [(role, [row for row in found if _asks(row.approval, role)]) for role in held]
    return [
        View(MINE, "Mine", [row for row in found if row.standing is Standing.MINE]),
        *(View(f"{ROLE}{role}", f"Role {role}", some) for role, some in of_roles),
        View(ALL, "All", found),
    ]


def _asks(approval: Approval, role: str) -> bool:
    return any(role in gate.roles for gate in approval.gates)


def _row(approval: Approval, standing: Standing, now: datetime) -> Row:
    given = sum(vote.approve for vote in approval.votes)
    wanted = max((gate.quorum or 1 for gate in approval.gates), default=1)
    due = approval.expire_time.ToDatetime(UTC) if approval.HasField("expire_time") else None
    return Row(
        approval,
        standing,
        short_type(approval.type),
        only_amount(MessageToDict(approval.data_json)),
        f"{given}/{wanted}",
        approval.request_time.ToDatetime(UTC),
        due,
        due is not None and due - now < SOON,
    )
