"""The caller: the identity that a verified token gives its bearer, and what it is granted."""

from __future__ import annotations

from dataclasses import dataclass

from handrail.coordinator.decide.grants import READER, Grant


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified identity. `agent` is the agent that it may speak for; empty for people."""

    subject: str
    grants: frozenset[Grant] = frozenset()
    agent: str = ""

    def holds(self, role: str, flow_type: str) -> bool:
        """Tells whether the caller has this role on this flow type."""
        return any(grant.satisfies(role) and grant.covers(flow_type) for grant in self.grants)

    def holds_somewhere(self, role: str) -> bool:
        """Tells whether the caller has this role on any flow type."""
        return any(grant.satisfies(role) for grant in self.grants)

    def reads(self, flow_type: str) -> bool:
        """Tells whether the caller may read flows and templates of this type: any grant on it implies that."""
        return self.holds(READER, flow_type)

    def approver_roles(self, flow_type: str) -> frozenset[str]:
        """Returns the roles of gates that the caller holds on this flow type."""
        return frozenset(grant.approves_as for grant in self.grants if grant.covers(flow_type)) - {""}
