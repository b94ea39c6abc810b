"""Votes: who may vote on a proposal, and for which gates a vote counts.

A voter and the person on whose behalf they vote count as one person: what bars one of them bars the vote.
"""

from __future__ import annotations

from collections.abc import Iterable

from handrail.mesh.flow import Ask, Ballot, Proposal, ProposalState, Void
from handrail.mesh.flow.values import replace
from handrail.mesh.wire.identity import canonical, same, why_ambiguous
from handrail.v1.error_reason_pb2 import ErrorReason


def ballot_of(proposal: Proposal, person: str) -> Ballot | None:
    """The counted vote that this person cast or that was cast on this person's behalf, or None."""
    return next(
        (ballot for ballot in proposal.ballots if any(same(each, person) for each in ballot.people)),
        None,
    )


def judge_vote(
    proposal: Proposal, voter: str, roles: Iterable[str], digest: str, *, on_behalf_of: str = ""
) -> Void | None:
    """Why this vote does not count; None if it does. The API calls it before it records a vote, the fold afterwards."""
    if proposal.state is not ProposalState.PENDING:
        return Void(f"the approval is {proposal.state.name.lower()}", ErrorReason.ERROR_REASON_APPROVAL_CLOSED)
    if digest != proposal.digest:
        return Void("the vote is for another digest", ErrorReason.ERROR_REASON_DIGEST_MISMATCH)
    people = (voter, on_behalf_of) if on_behalf_of else (voter,)
    barred = next((void for person in people if (void := _why_barred(proposal, person)) is not None), None)
    if barred is not None:
        return barred
    held = frozenset(roles)
    open_to_roles = [ask for ask in proposal.asks if not ask.passed and held & ask.gate.roles]
    if not voter or not open_to_roles:
        wanted = sorted({role for ask in proposal.asks if not ask.passed for role in ask.gate.roles})
        return Void(
            f"{voter or 'nobody'} has none of the roles {', '.join(wanted)}",
            ErrorReason.ERROR_REASON_MISSING_ROLE,
        )
    if all(ask.nobody_qualifies or _is_requester(ask, people) for ask in open_to_roles):
        return Void(
            f"{' or '.join(people)} asked for it and may not approve it",
            ErrorReason.ERROR_REASON_REQUESTER_MAY_NOT_VOTE,
        )
    return None


def counted(ask: Ask, ballot: Ballot, roles: frozenset[str]) -> Ask:
    """The gate after a yes. It counts if the gate waits for votes, accepts one of the roles and bars neither person."""
    if ask.passed or not roles & ask.gate.roles or ask.nobody_qualifies or _is_requester(ask, ballot.people):
        return ask
    voters = ask.voters | {canonical(ballot.voter)}
    return replace(ask, voters=voters, passed=len(voters) >= ask.gate.quorum)


def _why_barred(proposal: Proposal, person: str) -> Void | None:
    """Why this person may not vote on this proposal, whatever roles they hold; None if nothing bars them."""
    ballot = ballot_of(proposal, person)
    if ballot is not None:
        how = "" if same(ballot.voter, person) else f", by {ballot.voter} on their behalf"
        return Void(f"{person} has already voted{how}", ErrorReason.ERROR_REASON_ALREADY_VOTED)
    ambiguous = why_ambiguous(person)
    if ambiguous:
        return Void(f"the name {person} is ambiguous: {ambiguous}", ErrorReason.ERROR_REASON_AMBIGUOUS_NAME)
    if _is_proposer(proposal, person):
        return Void(f"{person} proposed it and may not vote on it", ErrorReason.ERROR_REASON_PROPOSER_MAY_NOT_VOTE)
    if any(same(person, each) for ask in proposal.asks for each in ask.reassigned_by):
        return Void(f"{person} reassigned it and may not vote on it", ErrorReason.ERROR_REASON_REASSIGNER_MAY_NOT_VOTE)
    return None


def _is_requester(ask: Ask, people: Iterable[str]) -> bool:
    return ask.gate.not_the_requester and any(same(person, ask.requester) for person in people)


def _is_proposer(proposal: Proposal, voter: str) -> bool:
    """Whether the voter proposed it, by a call on behalf of an agent."""
    caller = proposal.recorded.event.request.caller
    return bool(caller) and same(caller, voter)
