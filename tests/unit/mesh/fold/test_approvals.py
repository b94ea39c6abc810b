"""P6: gates, votes and expiries, judged by their place in the stream."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from handrail.coordinator.decide import decide, messages
from handrail.mesh.flow import Ask, ProposalState
from handrail.mesh.fold.votes import judge_vote
from handrail.mesh.wire.envelope import Entry, pack
from handrail.v1.decision_pb2 import ApprovalCause, ApprovalGiven, ApprovalRefused, ApprovalRequested, HaltMode
from handrail.v1.error_reason_pb2 import ErrorReason
from tests.support.orders import begun, emit, granted, make, proposal_of, reserved, run_of, stands, types, void_of
from tests.support.simulation import Simulation

LEAD = ["sales_lead"]
HOURS = timedelta(hours=1)


def decision(simulation: Simulation, message: ApprovalGiven | ApprovalRefused | ApprovalRequested) -> Entry:
    return messages.decision(simulation.flow, message, about="test", now=simulation.now)


def ask_of(simulation: Simulation) -> Ask:
    return proposal_of(simulation).asks[0]


def test_a_gate_whose_condition_is_false_asks_nobody() -> None:
    simulation = granted(10)
    assert proposal_of(simulation).state is ProposalState.RELEASED
    assert "ApprovalRequested" not in types(simulation)


def test_a_gate_without_condition_always_asks() -> None:
    simulation = granted(0, big_discount__when="")
    assert ask_of(simulation).reason == "always"
    assert stands(simulation) == "WAITING_APPROVAL"


def test_p6_a_gate_that_can_not_be_evaluated_asks_a_person() -> None:
    simulation = granted(0, big_discount__when="100 / event.percent > 1")
    assert "can't be evaluated" in ask_of(simulation).reason
    assert stands(simulation) == "WAITING_APPROVAL"


@pytest.mark.parametrize(
    "when, asks",
    [
        ("event.percent > flow.first.units", True),
        ("event.percent > flow.first.units + 3", False),
        ("flow.latest['shop.v1.StockReserved'].units < flow.first.units", False),
        ("flow.counts['shop.v1.StockReserved'] == 1", True),
        ("flow.facts['shop.v1.StockReserved'].map(f, f.units).sum() > event.percent", False),
        ("flow.counts['shop.v1.DiscountGranted'] + flow.proposals['shop.v1.DiscountGranted'].size() > 0", False),
        ("flow.elapsed > duration('0s')", False),
    ],
)
def test_a_gate_looks_at_the_flow_at_the_place_of_the_proposal(when: str, asks: bool) -> None:
    simulation = granted(5, big_discount__when=when)
    assert bool(proposal_of(simulation).asks) is asks
    proposed = proposal_of(simulation)
    if not asks:
        emit(simulation, "pay", "PaymentTaken", amount=95)
    assert simulation.folded().proposals[proposed.recorded.event_id].asks == proposed.asks, (
        "P4: no later fact has a say"
    )


def test_p6_a_gate_on_a_fact_that_is_not_there_asks_a_person() -> None:
    simulation = granted(5, big_discount__when="flow.latest['shop.v1.PaymentTaken'].amount > 0")
    assert "the flow has no shop.v1.PaymentTaken yet" in ask_of(simulation).reason
    looked = "flow.counts['shop.v1.PaymentTaken'] > 0 && flow.latest['shop.v1.PaymentTaken'].amount > 0"
    assert not proposal_of(granted(5, big_discount__when=looked)).asks


@pytest.mark.parametrize("share", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "when", ["event.share > 0.5", "event.share < 0.5", "event.share * 0.0 != 0.0", "!(event.share > 0.5)"]
)
def test_p6_a_number_that_is_none_asks_a_person(when: str, share: float) -> None:
    simulation = reserved(big_discount__when=when)
    emit(simulation, "discount", "DiscountGranted", percent=5, share=share)
    assert f"event.share is {share}" in ask_of(simulation).reason
    assert stands(simulation) == "WAITING_APPROVAL"


def test_proposals_that_wait_are_seen_by_the_next_one() -> None:
    when = "event.percent + flow.proposals['shop.v1.DiscountGranted'].map(p, p.percent).sum() > 10"
    simulation = reserved(big_discount__when=when)
    simulation.coordinator = False
    run = run_of(simulation, "discount")
    for index in range(3):
        simulation.say(simulation.outcome(run, make("DiscountGranted", percent=4), index=index, total=3))
    assert [bool(each.asks) for each in simulation.flow.proposals.values()] == [False, False, True]


def test_p6_several_gates_on_one_type_must_all_pass() -> None:
    simulation = granted(30, **TWO_GATES)
    simulation.say(simulation.vote(proposal_of(simulation), "ann", LEAD))
    simulation.say(simulation.vote(proposal_of(simulation), "bob", LEAD))
    assert [ask.passed for ask in proposal_of(simulation).asks] == [True, False]
    assert void_of(simulation, simulation.vote(proposal_of(simulation), "cat", LEAD)) is not None, "that gate passed"
    simulation.say(simulation.vote(proposal_of(simulation), "dan", ["finance"]))
    assert proposal_of(simulation).state is ProposalState.RELEASED


TWO_GATES: dict[str, Any] = {
    "flow__gates": (
        {
            "name": "lead",
            "on": "shop.v1.DiscountGranted",
            "approvers": {"roles": ["sales_lead"], "quorum": "2"},
            "expires_after": "3600s",
            "on_expiry": "REJECT",
        },
        {
            "name": "money",
            "on": "shop.v1.DiscountGranted",
            "approvers": {"roles": ["finance"], "quorum": "1"},
            "expires_after": "1800s",
            "on_expiry": "APPROVE",
        },
    )
}


def test_one_vote_counts_for_every_gate_whose_role_the_voter_holds() -> None:
    simulation = granted(30, **TWO_GATES)
    simulation.say(simulation.vote(proposal_of(simulation), "ann", [*LEAD, "finance"]))
    assert [ask.voters for ask in proposal_of(simulation).asks] == [{"ann"}, {"ann"}]


def test_each_gate_expires_by_itself() -> None:
    simulation = granted(30, **TWO_GATES)
    simulation.wait(timedelta(minutes=31))
    assert [ask.passed for ask in proposal_of(simulation).asks] == [False, True]
    assert proposal_of(simulation).state is ProposalState.PENDING
    simulation.wait(timedelta(minutes=31))
    assert proposal_of(simulation).state is ProposalState.REJECTED


def test_a_vote_counts_if_it_precedes_the_recorded_expiry() -> None:
    simulation = granted(30, big_discount__approvers__quorum="1")
    simulation.coordinator = False
    simulation.wait(5 * HOURS)
    expiry = decide(simulation.flow, simulation.now)
    simulation.say(simulation.vote(proposal_of(simulation), "ann", LEAD))
    assert expiry is not None
    assert void_of(simulation, expiry) is not None
    assert proposal_of(simulation).state is ProposalState.APPROVED


def test_p4_an_expiry_by_a_clock_that_runs_ahead_is_void() -> None:
    for policy in ("REJECT", "APPROVE", "ESCALATE"):
        simulation = granted(30, big_discount__on_expiry=policy)
        early = decide(simulation.flow, simulation.now + 5 * HOURS)
        assert early is not None
        assert void_of(simulation, early) is not None, policy
        assert proposal_of(simulation).state is ProposalState.PENDING


def test_p4_an_expiry_is_recorded_once() -> None:
    simulation = granted(30, big_discount__on_expiry="APPROVE")
    simulation.coordinator = False
    simulation.wait(4 * HOURS)
    first = decide(simulation.flow, simulation.now)
    assert first is not None
    simulation.store(first)
    again = decision(simulation, ApprovalGiven.FromString(first.event.data.value))
    assert void_of(simulation, again) is not None


def test_one_no_rejects_and_is_what_a_step_may_wait_for() -> None:
    simulation = granted(30)
    simulation.say(simulation.vote(proposal_of(simulation), "ann", LEAD))
    refusal = simulation.say(simulation.vote(proposal_of(simulation), "bob", LEAD, approve=False))
    assert proposal_of(simulation).state is ProposalState.REJECTED
    assert run_of(simulation, "refuse").trigger == refusal
    refused = ApprovalRefused.FromString(refusal.event.data.value)
    assert refused.proposal == proposal_of(simulation).recorded.event.data


@pytest.mark.parametrize(
    "voter,roles,digest,reason",
    [
        ("kim", LEAD, "", ErrorReason.ERROR_REASON_REQUESTER_MAY_NOT_VOTE),
        ("lou", ["intern"], "", ErrorReason.ERROR_REASON_MISSING_ROLE),
        ("lou", [], "", ErrorReason.ERROR_REASON_MISSING_ROLE),
        ("", LEAD, "", ErrorReason.ERROR_REASON_MISSING_ROLE),
        ("ann", LEAD, "00", ErrorReason.ERROR_REASON_DIGEST_MISMATCH),
    ],
)
@pytest.mark.parametrize("approve", [True, False])
def test_p6_a_vote_that_does_not_count_is_void_with_its_reason(
    voter: str, roles: list[str], digest: str, reason: ErrorReason.ValueType, approve: bool
) -> None:
    simulation = granted(30)
    before = proposal_of(simulation)
    void = void_of(simulation, simulation.vote(before, voter, roles, approve=approve, digest=digest))
    assert void is not None
    assert void.reason == reason
    assert proposal_of(simulation) == before


@pytest.mark.parametrize("second", [True, False])
def test_p6_one_vote_a_person(second: bool) -> None:
    simulation = granted(30)
    simulation.say(simulation.vote(proposal_of(simulation), "ann", LEAD))
    void = void_of(simulation, simulation.vote(proposal_of(simulation), "ann", LEAD, approve=second))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_ALREADY_VOTED
    assert stands(simulation) == "WAITING_APPROVAL"


@pytest.mark.parametrize("other", ["ann ", "Ann", "\uff41nn", "a\u200bnn"])
def test_p6_one_vote_a_person_however_the_name_is_written(other: str) -> None:
    simulation = granted(30)
    simulation.say(simulation.vote(proposal_of(simulation), "ann", LEAD))
    void = void_of(simulation, simulation.vote(proposal_of(simulation), other, LEAD))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_ALREADY_VOTED
    assert stands(simulation) == "WAITING_APPROVAL"


def test_p6_a_name_of_which_nobody_can_tell_whose_it_is_does_not_vote() -> None:
    simulation = granted(30)
    void = void_of(simulation, simulation.vote(proposal_of(simulation), "\u0430nn", LEAD))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_AMBIGUOUS_NAME


@pytest.mark.parametrize("other", ["Kim", "kim ", "\uff4bim"])
def test_p6_the_requester_does_not_vote_however_the_name_is_written(other: str) -> None:
    simulation = granted(30)
    void = void_of(simulation, simulation.vote(proposal_of(simulation), other, LEAD))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_REQUESTER_MAY_NOT_VOTE


@pytest.mark.parametrize("named", ["\u0430nn", " ", "\u200b"])
def test_p6_a_field_that_names_nobody_who_can_be_told_lets_nobody_vote(named: str) -> None:
    simulation = reserved(big_discount__approvers__requester_field="asked_by")
    emit(simulation, "discount", "DiscountGranted", percent=30, asked_by=named)
    assert stands(simulation) == "ESCALATED"


def test_a_late_vote_is_void() -> None:
    simulation = granted(30)
    simulation.wait(5 * HOURS)
    void = void_of(simulation, simulation.vote(proposal_of(simulation), "ann", LEAD))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_APPROVAL_CLOSED


def test_the_api_judges_a_vote_as_the_fold_does() -> None:
    simulation = granted(30)
    proposal = proposal_of(simulation)
    assert judge_vote(proposal, "ann", LEAD, proposal.digest) is None
    refused = judge_vote(proposal, "kim", LEAD, proposal.digest)
    assert refused is not None
    assert refused == void_of(simulation, simulation.vote(proposal, "kim", LEAD))


def test_p6_where_the_requester_can_not_be_told_nobody_qualifies() -> None:
    simulation = granted(30, by="")
    assert stands(simulation) == "ESCALATED"
    assert void_of(simulation, simulation.vote(proposal_of(simulation), "ann", LEAD)) is not None
    assert proposal_of(simulation).state is ProposalState.EVALUATED


def test_p6_the_requester_may_be_a_field_of_the_proposal() -> None:
    simulation = reserved(big_discount__approvers__requester_field="asked_by")
    emit(simulation, "discount", "DiscountGranted", percent=30, asked_by="ann")
    assert void_of(simulation, simulation.vote(proposal_of(simulation), "ann", LEAD)) is not None
    assert void_of(simulation, simulation.vote(proposal_of(simulation), "kim", LEAD)) is None


@pytest.mark.parametrize("field", ["nobody_here", "percent", "asked_by.name"])
def test_p6_a_field_that_names_nobody_lets_nobody_qualify(field: str) -> None:
    simulation = reserved(big_discount__approvers__requester_field=field)
    emit(simulation, "discount", "DiscountGranted", percent=30, asked_by="ann")
    assert stands(simulation) == "ESCALATED"


def test_p6_an_expiry_that_approves_does_not_speak_for_a_gate_that_nobody_may_pass() -> None:
    simulation = granted(30, by="", big_discount__on_expiry="APPROVE")
    simulation.wait(5 * HOURS)
    assert proposal_of(simulation).state is ProposalState.EVALUATED
    assert stands(simulation) == "ESCALATED"


def test_a_request_for_approval_is_made_once_and_for_what_was_proposed() -> None:
    simulation = granted(30)
    proposal = proposal_of(simulation)
    again = ApprovalRequested(proposal_id=proposal.recorded.event_id, digest=proposal.digest)
    assert void_of(simulation, decision(simulation, again)) is not None
    simulation = granted(30, by="")
    proposal = proposal_of(simulation)
    other = ApprovalRequested(proposal_id=proposal.recorded.event_id, digest="00")
    void = void_of(simulation, decision(simulation, other))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_DIGEST_MISMATCH


def test_a_decision_about_what_was_never_proposed_is_void() -> None:
    simulation = begun()
    for message in (ApprovalGiven(proposal_id="0" * 32), ApprovalRefused(proposal_id="0" * 32)):
        void = void_of(simulation, decision(simulation, message))
        assert void is not None
        assert void.reason == ErrorReason.ERROR_REASON_APPROVAL_NOT_FOUND


def test_a_refusal_by_resolution_that_nobody_resolved_is_void() -> None:
    simulation = granted(30)
    proposal = proposal_of(simulation)
    refusal = ApprovalRefused(
        proposal_id=proposal.recorded.event_id,
        digest=proposal.digest,
        voter="ola",
        cause=ApprovalCause.APPROVAL_CAUSE_RESOLUTION,
    )
    assert void_of(simulation, decision(simulation, refusal)) is not None
    assert stands(simulation) == "WAITING_APPROVAL"


def test_the_digest_covers_the_content() -> None:
    first, second = granted(30), granted(31)
    assert proposal_of(first).recorded.event_id == proposal_of(second).recorded.event_id
    assert proposal_of(first).digest != proposal_of(second).digest


def test_on_hold_votes_count_and_requests_expire_but_nothing_is_released() -> None:
    held = held_while_asking()
    held.say(held.vote(proposal_of(held), "ann", LEAD))
    held.say(held.vote(proposal_of(held), "bob", LEAD))
    assert proposal_of(held).state is ProposalState.APPROVED
    assert "DiscountGranted" not in [fact.type for fact in held.flow.facts.values()]
    expiring = held_while_asking()
    expiring.wait(5 * HOURS)
    assert proposal_of(expiring).state is ProposalState.REJECTED


def held_while_asking() -> Simulation:
    simulation = reserved(risky__on=("shop.v1.StockReserved",), risky__when="event.units > 5")
    simulation.say(simulation.reopen(run_of(simulation, "reserve"), "ola"))
    emit(simulation, "discount", "DiscountGranted", percent=30, asked_by="kim")
    emit(simulation, "reserve", "StockReserved", units=9)
    assert simulation.flow.is_held
    return simulation


def test_a_cancelled_flow_takes_no_votes() -> None:
    simulation = granted(30)
    simulation.say(simulation.halt(HaltMode.HALT_MODE_CANCEL, "ola", "no"))
    assert void_of(simulation, simulation.vote(proposal_of(simulation), "ann", LEAD)) is not None
    assert proposal_of(simulation).state is ProposalState.WITHDRAWN


def test_p5_a_decision_that_can_not_be_read_is_void() -> None:
    simulation = granted(30)
    entry = simulation.vote(proposal_of(simulation), "ann", LEAD)
    entry.event.data.CopyFrom(pack(ApprovalGiven()))
    entry.event.data.value = b"\xff"
    void = void_of(simulation, entry)
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_MALFORMED


def test_a_gated_step_with_an_effect_has_it_from_the_proposal_on() -> None:
    simulation = reserved(
        discount__effect="UNDOABLE", discount__undo={"timeout": "10s", "retry": {"max_attempts": "1"}}
    )
    simulation.say(simulation.outcome(run_of(simulation, "discount"), make("DiscountGranted", percent=30)))
    simulation.say(simulation.halt(HaltMode.HALT_MODE_CANCEL, "ola", "no"))
    assert [effect.step.name for effect in simulation.flow.undo_targets()] == ["discount", "reserve"]
