"""Grants: what a caller may do, each a role on one flow type or on every type. Pure.

A grant is written `<role>@<flow type>`, such as `operator@refund` or `approver.finance@*`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from handrail.mesh.flow.acts import OPERATOR as OPERATOR
from handrail.mesh.template.decisions import TEMPLATE_ADMIN as TEMPLATE_ADMIN
from handrail.mesh.template.persons import BREAKGLASS as BREAKGLASS
from handrail.mesh.wire.subjects import NAME

EVERY_TYPE = "*"
"""The scope of a grant that holds for every flow type, also for those that are stored later."""

READER = "reader"
"""Reads flows, approvals and templates. Every other grant implies it on the same type."""

STARTER = "starter"
"""Starts flows."""

QUARANTINE_READER = "quarantine_reader"
"""Reads quarantined messages with their bytes."""

APPROVER = "approver."
"""What the role of an approver begins with; the rest is a role that gates name, such as `finance`."""

ANY_APPROVER = "approver.<role>"
"""Stands for the roles of all approvers, where any of them suffices."""

ROLES = (READER, STARTER, OPERATOR, TEMPLATE_ADMIN, QUARANTINE_READER, BREAKGLASS)
"""Every role but those of approvers."""

MAX_APPROVER_ROLE = 128
"""The longest role that a gate can name, in characters (handrail.v1.Approvers.roles)."""

_VIEWER = "viewer"
"""In the claim `roles`: reads the quarantine."""

_BY_CLAIMED_ROLE = {
    OPERATOR: (OPERATOR, STARTER, TEMPLATE_ADMIN, QUARANTINE_READER),
    STARTER: (STARTER,),
    _VIEWER: (QUARANTINE_READER,),
}


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """A role on a flow type, or on every type (`EVERY_TYPE`)."""

    role: str
    flow_type: str

    def __str__(self) -> str:
        """Returns the grant as a token claims it."""
        return f"{self.role}@{self.flow_type}"

    @property
    def approves_as(self) -> str:
        """The role that gates name; empty if the grant is not an approver's."""
        return self.role.removeprefix(APPROVER) if self.role.startswith(APPROVER) else ""

    def satisfies(self, role: str) -> bool:
        """Tells whether the grant's role is this one or implies it: every role implies `READER`."""
        return role in (self.role, READER) or (role == ANY_APPROVER and bool(self.approves_as))

    def covers(self, flow_type: str) -> bool:
        """Tells whether the grant holds for this flow type. Only a grant on every type covers `EVERY_TYPE`."""
        return self.flow_type in (EVERY_TYPE, flow_type)


def parsed(text: str) -> Grant:
    """Parses `<role>@<flow type>`; raises ValueError with what is wrong."""
    role, at, flow_type = text.rpartition("@")
    if not at:
        raise ValueError("it is not <role>@<flow type>; for every flow type write <role>@*")
    if flow_type != EVERY_TYPE and not NAME.fullmatch(flow_type):
        raise ValueError(
            'the part after "@" must be * or a flow type: lower-case letters, digits, - and _, at most 63 characters'
        )
    approves_as = Grant(role, flow_type).approves_as
    if role not in ROLES and not (approves_as.isprintable() and 0 < len(approves_as) <= MAX_APPROVER_ROLE):
        raise ValueError(f"the role must be one of {', '.join(ROLES)}, or {APPROVER}<role that a gate names>")
    return Grant(role, flow_type)


def of_roles(roles: Iterable[str]) -> frozenset[Grant]:
    """Returns what the claim `roles` grants: each role on every flow type, also as an approver's, and reading."""
    granted = {Grant(READER, EVERY_TYPE)}
    for role in roles:
        named = (*_BY_CLAIMED_ROLE.get(role, ()), f"{APPROVER}{role}")
        granted.update(Grant(each, EVERY_TYPE) for each in named)
    return frozenset(granted)
