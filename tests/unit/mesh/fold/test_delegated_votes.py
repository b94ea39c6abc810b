"""P6: votes on behalf of somebody, and reassigned approvals, as the fold judges them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.mesh.flow import ProposalState
from handrail.mesh.wire.identity import canonical
from handrail.v1.error_reason_pb2 import ErrorReason
from tests.support.orders import granted, proposal_of, stands, void_of

LEAD = ["sales_lead"]

PEOPLE = st.sampled_from(["ann", "ANN", "bob", "cat", "dan", "Dan ", "kim", "Kim"])
VOTES = st.lists(st.tuples(PEOPLE, st.one_of(st.just(""), PEOPLE)), max_size=8)


@given(VOTES)
def test_p6_a_quorum_of_two_takes_two_votes_that_share_nobody(votes: Sequence[tuple[str, str]]) -> None:
    simulation = granted(30)
    for voter, behalf in votes:
        proposal = proposal_of(simulation)
        if proposal.state is not ProposalState.PENDING:
            break
        simulation.say(simulation.vote(proposal, voter, LEAD, on_behalf_of=behalf))
    ballots = proposal_of(simulation).ballots
    people = [{canonical(person) for person in ballot.people} for ballot in ballots]
    assert sum(map(len, people)) == len(set().union(*people)), "one person took part in two votes"
    assert not any("kim" in each for each in people), "the requester took part"
    assert (proposal_of(simulation).state is ProposalState.RELEASED) == (len(ballots) == 2)


@pytest.mark.parametrize(
    "voter, behalf, reason",
    [
        ("dan", "kim", ErrorReason.ERROR_REASON_REQUESTER_MAY_NOT_VOTE),
        ("kim", "bob", ErrorReason.ERROR_REASON_REQUESTER_MAY_NOT_VOTE),
        ("dan", "ANN ", ErrorReason.ERROR_REASON_ALREADY_VOTED),
        ("ann", "bob", ErrorReason.ERROR_REASON_ALREADY_VOTED),
        ("eve", "\u0430nna", ErrorReason.ERROR_REASON_AMBIGUOUS_NAME),
    ],
)
def test_p6_what_bars_one_of_the_two_bars_the_vote(voter: str, behalf: str, reason: ErrorReason.ValueType) -> None:
    simulation = granted(30)
    simulation.say(simulation.vote(proposal_of(simulation), "ann", LEAD))
    void = void_of(simulation, simulation.vote(proposal_of(simulation), voter, LEAD, on_behalf_of=behalf))
    assert void is not None
    assert void.reason == reason


def test_a_no_on_behalf_of_somebody_rejects() -> None:
    simulation = granted(30)
    simulation.say(simulation.vote(proposal_of(simulation), "dan", LEAD, approve=False, on_behalf_of="ann"))
    assert proposal_of(simulation).state is ProposalState.REJECTED
    assert proposal_of(simulation).ballots[0].people == ("dan", "ann")


def test_p6_a_reassignment_changes_the_roles_alone() -> None:
    simulation = granted(30)
    before = proposal_of(simulation).asks[0]
    simulation.say(simulation.reassign(proposal_of(simulation), "olga", ["manager"]))
    after = proposal_of(simulation).asks[0]
    assert after.gate.roles == {"manager"}
    assert (after.gate.quorum, after.gate.not_the_requester, after.requester, after.voters) == (
        before.gate.quorum,
        before.gate.not_the_requester,
        before.requester,
        before.voters,
    )


@pytest.mark.parametrize("voter, behalf", [("Olga", ""), ("olga", "ann"), ("dan", "OLGA")])
def test_p6_who_reassigned_it_takes_no_part(voter: str, behalf: str) -> None:
    simulation = granted(30)
    simulation.say(simulation.reassign(proposal_of(simulation), "olga", ["manager"]))
    void = void_of(simulation, simulation.vote(proposal_of(simulation), voter, ["manager"], on_behalf_of=behalf))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_REASSIGNER_MAY_NOT_VOTE


def test_p6_who_reassigned_it_back_still_takes_no_part() -> None:
    simulation = granted(30)
    simulation.say(simulation.reassign(proposal_of(simulation), "olga", ["manager"]))
    simulation.say(simulation.reassign(proposal_of(simulation), "otto", LEAD))
    assert void_of(simulation, simulation.vote(proposal_of(simulation), "olga", LEAD)) is not None
    assert void_of(simulation, simulation.vote(proposal_of(simulation), "otto", LEAD)) is not None
    simulation.say(simulation.vote(proposal_of(simulation), "ann", LEAD))
    simulation.say(simulation.vote(proposal_of(simulation), "bob", LEAD))
    assert proposal_of(simulation).state is ProposalState.RELEASED


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"digest": "0" * 64}, ErrorReason.ERROR_REASON_DIGEST_MISMATCH),
        ({"gate": "nowhere"}, ErrorReason.ERROR_REASON_APPROVAL_NOT_FOUND),
        ({"roles": []}, ErrorReason.ERROR_REASON_MALFORMED),
        ({"by": ""}, ErrorReason.ERROR_REASON_MALFORMED),
    ],
)
def test_p6_a_reassignment_that_says_too_little_is_void(
    changes: dict[str, object], reason: ErrorReason.ValueType
) -> None:
    simulation = granted(30)
    given: dict[str, object] = {"by": "olga", "roles": ["manager"], **changes}
    entry = simulation.reassign(proposal_of(simulation), **given)  # type: ignore[arg-type]
    void = void_of(simulation, entry)
    assert void is not None
    assert void.reason == reason
    assert proposal_of(simulation).asks[0].gate.roles == {"sales_lead"}


def test_a_decided_approval_is_not_reassigned() -> None:
    simulation = granted(30)
    for voter in ("ann", "bob"):
        simulation.say(simulation.vote(proposal_of(simulation), voter, LEAD))
    void = void_of(simulation, simulation.reassign(proposal_of(simulation), "olga", ["manager"]))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_APPROVAL_CLOSED
    assert stands(simulation) == "RUNNING"
