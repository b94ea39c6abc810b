"""The consumer beside a durable delivers nothing that the durable does not, and nothing of who is left out."""

from __future__ import annotations

import pytest

from handrail.coordinator.reconcile.beside import filters_beside
from handrail.mesh.permissions import matches
from handrail.mesh.streams.durables import DECIDE, TRACK, coordinator_filters
from handrail.mesh.wire.subjects import Kind

KINDS = {
    DECIDE: (Kind.PROPOSAL, Kind.FAILURE, Kind.UNDONE, Kind.DIVERGENCE, Kind.RELEASED, Kind.PROGRESS),
    TRACK: (Kind.EVENT,),
}
"""What each durable delivers of an agent."""


def subject(kind: Kind, agent: str, message: str = "payments.v1.RefundPaid") -> str:
    """A subject of FLOW."""
    return f"flow.refund.{'0' * 32}.{kind}.{agent}.{'1' * 32}.{message}"


def delivers(filters: set[str], of: str) -> bool:
    """Whether a message with this subject is delivered."""
    return any(matches(each, of) for each in filters)


@pytest.mark.parametrize("durable", [DECIDE, TRACK])
def test_it_delivers_the_same_kinds_of_the_agents_that_are_not_left_out(durable: str) -> None:
    filters = filters_beside(durable, ["ledger", "refunds"])
    for kind in Kind:
        assert delivers(filters, subject(kind, "ledger")) == (kind in KINDS[durable]), kind
        assert not delivers(filters, subject(kind, "left-out")), kind


def test_the_decisions_of_the_coordinator_pass_by_as_well() -> None:
    for name in coordinator_filters()[DECIDE]:
        if ".decision." in name:
            decision = name.rpartition(".*.")[2]
            assert delivers(filters_beside(DECIDE, []), subject(Kind.DECISION, "coordinator", decision))


def test_the_flows_that_people_start_pass_by_as_well() -> None:
    assert delivers(filters_beside(TRACK, []), subject(Kind.EVENT, "coordinator"))
    assert delivers(filters_beside(DECIDE, []), subject(Kind.RELEASED, "coordinator"))
