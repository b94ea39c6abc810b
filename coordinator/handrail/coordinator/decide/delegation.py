"""Delegations: who may pass which role on, and which of them a vote can use. Pure.

A delegation passes on a role that the delegator's own token held when it was recorded. A delegated role is not in the
delegate's token, so it can't be passed on.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.grants import APPROVER, EVERY_TYPE
from handrail.mesh.errors import HandrailError
from handrail.mesh.wire.envelope import from_timestamp
from handrail.mesh.wire.identity import canonical, same, why_ambiguous
from handrail.v1.delegation_service_pb2 import Delegation, DelegationStatus, ListedDelegation
from handrail.v1.error_reason_pb2 import ErrorReason

LONGEST = timedelta(days=90)
"""The longest time from the call to the end of a delegation. It outlives the delegator's own role, if that is taken
away in between: so it is short, and an operator can end it."""

MOST_IN_FORCE = 50
"""How many delegations of one person may be in force or planned at a time."""


def why_refused(wanted: Delegation, caller: Caller, now: datetime, others: Iterable[ListedDelegation]) -> str:
    """Why a caller may not record this delegation, as text for people; empty if they may. `others` are recorded."""
    delegate = wanted.delegate
    if not canonical(delegate) or not delegate.isprintable():
        return "the delegate's name has no visible character, or some that can't be printed"
    ambiguous = why_ambiguous(delegate)
    if ambiguous:
        return f"the delegate's name is ambiguous: {ambiguous}"
    if canonical(delegate).startswith("agent/"):
        return "the delegate is an agent, and agents don't vote"
    if same(delegate, caller.subject):
        return "nobody can delegate to themselves"
    if wanted.role not in caller.approver_roles(wanted.flow_type):
        return (
            f"{caller.subject} does not hold {APPROVER}{wanted.role}@{wanted.flow_type}; a delegated role can't be "
            "passed on"
        )
    start, end = from_timestamp(wanted.start_time), from_timestamp(wanted.end_time)
    if end <= start or end <= now:
        return "it would end before it begins, or has ended already"
    if end > now + LONGEST:
        return f"it would end later than {LONGEST.days} days from now"
    running = sum(same(each.delegation.delegator, caller.subject) and status(each, now) in _TO_COME for each in others)
    return f"{caller.subject} has {running} delegations in force already" if running >= MOST_IN_FORCE else ""


def status(listed: ListedDelegation, now: datetime) -> DelegationStatus.ValueType:
    """Where a delegation stands at a time."""
    if listed.HasField("end"):
        return DelegationStatus.DELEGATION_STATUS_ENDED
    if now < from_timestamp(listed.delegation.start_time):
        return DelegationStatus.DELEGATION_STATUS_PLANNED
    if now >= from_timestamp(listed.delegation.end_time):
        return DelegationStatus.DELEGATION_STATUS_EXPIRED
    return DelegationStatus.DELEGATION_STATUS_ACTIVE


def in_force(recorded: Iterable[ListedDelegation], delegate: str, now: datetime) -> tuple[ListedDelegation, ...]:
    """The delegations to a person that are in force at a time, oldest first."""
    return tuple(
        each
        for each in recorded
        if same(each.delegation.delegate, delegate) and status(each, now) == DelegationStatus.DELEGATION_STATUS_ACTIVE
    )


def covers(listed: ListedDelegation, flow_type: str) -> bool:
    """Whether a delegation is for flows of this type."""
    return listed.delegation.flow_type in (flow_type, EVERY_TYPE)


def concerns(listed: ListedDelegation, caller: Caller) -> bool:
    """Whether the caller is one of the two people of a delegation."""
    return any(same(caller.subject, person) for person in (listed.delegation.delegator, listed.delegation.delegate))


def refused(why: str) -> HandrailError:
    """The error for a delegation that is not allowed."""
    return HandrailError(ErrorReason.ERROR_REASON_DELEGATION_REFUSED, f"the delegation is refused: {why}")


def not_found(delegation_id: str) -> HandrailError:
    """The error for a delegation that does not exist, or that the caller may not see."""
    return HandrailError(
        ErrorReason.ERROR_REASON_DELEGATION_NOT_FOUND,
        f"no delegation {delegation_id}",
        delegation_id=delegation_id,
    )


_TO_COME = (DelegationStatus.DELEGATION_STATUS_ACTIVE, DelegationStatus.DELEGATION_STATUS_PLANNED)
