"""Whose approvals are whose, and in what order: a hint by the token and delegations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from handrail.console.approvals import inbox
from handrail.console.approvals.voter import Standing, voter
from handrail.mesh.wire.envelope import timestamp
from handrail.v1.decision_pb2 import GateRequest
from handrail.v1.delegation_service_pb2 import Delegation, DelegationStatus, ListedDelegation
from handrail.v1.flow_service_pb2 import Approval, Vote
from handrail.v1.identity_service_pb2 import WhoAmIResponse

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
ANNA = WhoAmIResponse(subject="anna", grants=["approver.finance@refund", "reader@*"])


def approval(role: str = "finance", *, due: int | None = None, flow_type: str = "refund", **gate: object) -> Approval:
    """An approval with one gate, due so many minutes after noon."""
    gates = [GateRequest(gate="look", roles=[role], quorum=2, **gate)]  # type: ignore[arg-type]
    found = Approval(flow_type=flow_type, type="payments.v1.RefundGranted", gates=gates, request_time=timestamp(NOON))
    if due is not None:
        found.expire_time.CopyFrom(timestamp(NOON + timedelta(minutes=due)))
    return found


def delegated(to: str, role: str, status: DelegationStatus.ValueType) -> ListedDelegation:
    return ListedDelegation(delegation=Delegation(delegate=to, role=role, flow_type="*"), status=status)


@pytest.mark.parametrize(
    "found, standing",
    [
        (approval(), Standing.MINE),
        (approval("legal"), Standing.OTHERS),
        (approval(flow_type="order"), Standing.OTHERS),
        (approval(requester="Anna"), Standing.BARRED),
        (approval(reassigned_by=["anna"]), Standing.BARRED),
    ],
)
def test_a_person_may_vote_by_the_roles_of_the_token(found: Approval, standing: Standing) -> None:
    assert voter(ANNA, []).standing(found) is standing


def test_who_voted_is_not_asked_again() -> None:
    found = approval()
    found.votes.append(Vote(voter="ANNA", approve=True))
    assert voter(ANNA, []).standing(found) is Standing.VOTED


def test_a_role_counts_that_somebody_passed_on_as_long_as_it_is_in_force() -> None:
    active, over = DelegationStatus.DELEGATION_STATUS_ACTIVE, DelegationStatus.DELEGATION_STATUS_ENDED
    assert voter(ANNA, [delegated("anna", "legal", active)]).standing(approval("legal")) is Standing.MINE
    assert voter(ANNA, [delegated("anna", "legal", over)]).standing(approval("legal")) is Standing.OTHERS
    assert voter(ANNA, [delegated("ben", "legal", active)]).standing(approval("legal")) is Standing.OTHERS


def test_what_is_due_first_is_first_and_what_never_ends_is_last() -> None:
    rows = inbox.rows([approval(), approval(due=300), approval(due=20)], voter(ANNA, []), NOON)
    assert [row.due for row in rows] == [NOON + timedelta(minutes=20), NOON + timedelta(minutes=300), None]
    assert [row.is_soon for row in rows] == [True, False, False]
    assert rows[0].votes == "0/2"


def test_the_views_are_mine_each_role_of_mine_and_all() -> None:
    person = voter(ANNA, [])
    rows = inbox.rows([approval(), approval("legal"), approval(requester="anna")], person, NOON)
    assert [(each.label, len(each.rows)) for each in inbox.views(rows, person)] == [
        ("Mine", 1),
        ("Role finance", 2),
        ("All", 3),
    ]
