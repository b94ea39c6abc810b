"""P6: who may pass which role on, and which delegations a vote can use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from handrail.coordinator.decide import delegation
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.grants import of_roles, parsed
from handrail.mesh.wire.envelope import timestamp
from handrail.v1.delegation_service_pb2 import Delegation, DelegationEnd, DelegationStatus, ListedDelegation

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
LISA = Caller("lisa", of_roles(["finance"]))


def listed(*, flow_type: str = "refund", start: timedelta = -DAY, end: timedelta = DAY) -> ListedDelegation:
    return ListedDelegation(
        delegation=Delegation(
            delegator="lisa",
            delegate="dora",
            role="finance",
            flow_type=flow_type,
            start_time=timestamp(NOW + start),
            end_time=timestamp(NOW + end),
        )
    )


@pytest.mark.parametrize(
    "caller, allowed",
    [(LISA, True), (Caller("lisa", of_roles(["operator"])), False), (Caller("lisa"), False)],
)
def test_p6_only_who_holds_a_role_passes_it_on(caller: Caller, allowed: bool) -> None:
    assert (delegation.why_refused(listed().delegation, caller, NOW, ()) == "") is allowed


@pytest.mark.parametrize(
    "start, end, allowed",
    [
        (timedelta(), 90 * DAY, True),
        (timedelta(), 90 * DAY + timedelta(seconds=1), False),
        (timedelta(), timedelta(), False),
        (2 * DAY, DAY, False),
        (10 * DAY, 20 * DAY, True),
    ],
)
def test_a_delegation_lasts_ninety_days_at_most(start: timedelta, end: timedelta, allowed: bool) -> None:
    wanted = listed(start=start, end=end).delegation
    assert (delegation.why_refused(wanted, LISA, NOW, ()) == "") is allowed


def test_one_person_has_fifty_delegations_in_force_at_most() -> None:
    over = [listed(end=-timedelta(hours=1))] * 100
    running = [listed(start=DAY, end=2 * DAY)] * (delegation.MOST_IN_FORCE - 1)
    assert delegation.why_refused(listed().delegation, LISA, NOW, [*over, *running]) == ""
    assert "50 delegations" in delegation.why_refused(listed().delegation, LISA, NOW, [*over, *running, listed()])


def ended(each: ListedDelegation) -> ListedDelegation:
    each.end.CopyFrom(DelegationEnd(by="lisa"))
    return each


@pytest.mark.parametrize(
    "recorded, status, usable",
    [
        (listed(), DelegationStatus.DELEGATION_STATUS_ACTIVE, True),
        (listed(flow_type="*"), DelegationStatus.DELEGATION_STATUS_ACTIVE, True),
        (listed(flow_type="loan"), DelegationStatus.DELEGATION_STATUS_ACTIVE, False),
        (listed(start=timedelta(seconds=1)), DelegationStatus.DELEGATION_STATUS_PLANNED, False),
        (listed(start=timedelta()), DelegationStatus.DELEGATION_STATUS_ACTIVE, True),
        (listed(end=timedelta()), DelegationStatus.DELEGATION_STATUS_EXPIRED, False),
        (ended(listed()), DelegationStatus.DELEGATION_STATUS_ENDED, False),
    ],
)
def test_p6_a_vote_uses_what_is_in_force_for_its_flow_type(
    recorded: ListedDelegation, status: DelegationStatus.ValueType, usable: bool
) -> None:
    assert delegation.status(recorded, NOW) == status
    found = [each for each in delegation.in_force([recorded], "Dora ", NOW) if delegation.covers(each, "refund")]
    assert bool(found) is usable
    assert not delegation.in_force([recorded], "emil", NOW)


@pytest.mark.parametrize("scope, allowed", [("refund", True), ("*", True), ("loan", False)])
def test_p6_a_role_is_passed_on_for_no_more_than_one_holds(scope: str, allowed: bool) -> None:
    caller = Caller("lisa", frozenset({parsed(f"approver.finance@{scope}")}))
    assert (delegation.why_refused(listed().delegation, caller, NOW, ()) == "") is allowed
    wider = delegation.why_refused(listed(flow_type="*").delegation, caller, NOW, ())
    assert (wider == "") is (scope == "*")
