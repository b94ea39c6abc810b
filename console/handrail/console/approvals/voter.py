"""Who may vote on what, as far as a token and delegations tell: a hint, since the coordinator judges votes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from handrail.mesh.wire.identity import same
from handrail.v1.delegation_service_pb2 import DelegationStatus, ListedDelegation
from handrail.v1.flow_service_pb2 import Approval
from handrail.v1.identity_service_pb2 import WhoAmIResponse

_APPROVER = "approver."
_EVERY_TYPE = "*"


class Standing(Enum):
    """What an approval is to a person."""

    MINE = "waits for you"
    VOTED = "you voted"
    BARRED = "you asked for it, so others decide"
    OTHERS = "waits for others"


@dataclass(frozen=True, slots=True)
class Role:
    """A role that gates name, held on a flow type or on every one."""

    name: str
    flow_type: str

    def covers(self, flow_type: str) -> bool:
        """Whether it holds for this flow type."""
        return self.flow_type in (_EVERY_TYPE, flow_type)


@dataclass(frozen=True, slots=True)
class Voter:
    """A person, with the roles of the token and those that others passed on."""

    subject: str
    roles: Sequence[Role]

    def standing(self, approval: Approval) -> Standing:
        """What an approval is to this person."""
        if any(same(vote.voter, self.subject) for vote in approval.votes):
            return Standing.VOTED
        barred = [person for gate in approval.gates for person in (gate.requester, *gate.reassigned_by) if person]
        if any(same(person, self.subject) for person in barred):
            return Standing.BARRED
        held = {role.name for role in self.roles if role.covers(approval.flow_type)}
        return Standing.MINE if any(held.intersection(gate.roles) for gate in approval.gates) else Standing.OTHERS


def voter(who: WhoAmIResponse, delegations: Iterable[ListedDelegation]) -> Voter:
    """The person as a voter."""
    return Voter(who.subject, [*_own(who.grants), *_passed_on(who.subject, delegations)])


def _own(grants: Iterable[str]) -> Iterable[Role]:
    for grant in grants:
        role, _, flow_type = grant.rpartition("@")
        if role.startswith(_APPROVER):
            yield Role(role.removeprefix(_APPROVER), flow_type)


def _passed_on(subject: str, delegations: Iterable[ListedDelegation]) -> Iterable[Role]:
    for each in delegations:
        is_active = each.status == DelegationStatus.DELEGATION_STATUS_ACTIVE
        if is_active and same(each.delegation.delegate, subject):
            yield Role(each.delegation.role, each.delegation.flow_type)
