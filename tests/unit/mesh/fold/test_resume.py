"""Resuming: what is done again, what stays, and what is taken back on the way to a step."""

from __future__ import annotations

from datetime import timedelta

from handrail.coordinator.decide import messages
from handrail.mesh.flow import EffectState, ProposalState, RunState
from handrail.v1.decision_pb2 import Choice, FlowResumed, HaltMode
from handrail.v1.failure_pb2 import StepCompleted
from tests.support.orders import (
    begun,
    effect_of,
    emit,
    granted,
    load,
    make,
    paid,
    proposal_of,
    reserved,
    run_of,
    stands,
    void_of,
)
from tests.support.simulation import Simulation

LEAD = ["sales_lead"]


def resume(simulation: Simulation) -> None:
    about = next(e for e in simulation.flow.escalations.values() if Choice.CHOICE_RESUME in e.choices)
    simulation.say(simulation.resolve(about.escalation_id, Choice.CHOICE_RESUME, "ola"))


def back_to(simulation: Simulation, step: str) -> None:
    """Go back to a step and on from there: what is under way is not started, effects are undone."""
    simulation.say(simulation.halt(HaltMode.HALT_MODE_COMPENSATE, "ola", "so", to_step=step))
    for run in list(simulation.flow.runs.values()):
        if run.state is RunState.OWED:
            simulation.say(simulation.not_started(run))
    while targets := [effect for effect in simulation.flow.undo_targets() if effect.deadline is not None]:
        simulation.say(simulation.undone(targets[0], StepCompleted()))
    resume(simulation)


def test_what_was_not_started_on_hold_is_done_when_the_flow_goes_on() -> None:
    simulation = begun(risk=9)
    simulation.say(simulation.not_started(run_of(simulation, "reserve")))
    resume(simulation)
    assert run_of(simulation, "reserve").state is RunState.OWED
    assert run_of(simulation, "reserve").attempt == 2


def test_what_is_under_way_when_the_flow_goes_on_is_left_alone() -> None:
    simulation = begun(risk=9)
    resume(simulation)
    assert run_of(simulation, "reserve").attempt == 1


def test_what_went_silent_on_hold_is_asked_for_again_and_not_held_against_the_agent() -> None:
    simulation = reserved(
        risky__on=("shop.v1.StockReserved",), risky__when="true", discount__retry={"max_attempts": "1"}
    )
    simulation.wait(timedelta(hours=2))
    resume(simulation)
    run = run_of(simulation, "discount")
    assert (run.state, run.attempt, run.budget) == (RunState.OWED, 2, 2)


def test_p4_a_resumption_that_nobody_asked_for_is_void() -> None:
    simulation = begun(risk=9)
    entry = messages.decision(simulation.flow, FlowResumed(by="ola"), about="", now=simulation.now)
    assert void_of(simulation, entry) is not None
    assert simulation.flow.is_held


def test_p4_a_flow_is_resumed_once() -> None:
    simulation = begun(risk=9)
    simulation.coordinator = False
    resume(simulation)
    entry = messages.decision(simulation.flow, FlowResumed(by="ola"), about="", now=simulation.now)
    again = messages.decision(simulation.flow, FlowResumed(by="ola"), about="again", now=simulation.now)
    simulation.store(entry)
    assert void_of(simulation, again) is not None


def test_what_came_after_the_step_is_taken_back_and_done_again() -> None:
    simulation = paid()
    back_to(simulation, "reserve")
    assert set(simulation.flow.facts_by_type["shop.v1.PaymentTaken"]) == set()
    assert [(run.step.name, run.run, run.state) for run in simulation.flow.runs.values()] == [
        ("reserve", 0, RunState.DONE),
        ("discount", 1, RunState.OWED),
        ("pay", 0, RunState.SUPERSEDED),
        ("send", 0, RunState.SUPERSEDED),
    ]


def test_the_step_itself_stays_done_and_its_effect_stands() -> None:
    simulation = paid()
    back_to(simulation, "reserve")
    assert run_of(simulation, "reserve").state is RunState.DONE
    assert effect_of(simulation, "StockReserved").state is EffectState.DONE


def test_a_step_that_had_failed_is_done_again() -> None:
    simulation = reserved(discount__on_failure="ESCALATE")
    simulation.say(simulation.failed(run_of(simulation, "discount"), "no", retryable=False))
    back_to(simulation, "reserve")
    assert run_of(simulation, "discount").state is RunState.OWED
    assert stands(simulation) == "RUNNING"


def test_going_back_twice_supersedes_for_good() -> None:
    simulation = paid()
    back_to(simulation, "reserve")
    emit(simulation, "discount", "DiscountGranted", percent=5)
    emit(simulation, "pay", "PaymentTaken", amount=95)
    back_to(simulation, "discount")
    states = [(run.step.name, run.run, run.state.name) for run in simulation.flow.runs.values()]
    assert states == [
        ("reserve", 0, "DONE"),
        ("discount", 1, "DONE"),
        ("pay", 0, "SUPERSEDED"),
        ("send", 0, "SUPERSEDED"),
        ("pay", 1, "OWED"),
        ("send", 0, "SUPERSEDED"),
    ]


def test_what_was_taken_back_does_not_come_back_whatever_its_agent_says() -> None:
    simulation = granted(5, pay__effect="NONE", pay__on_failure="ESCALATE", pay__retry={"max_attempts": "1"})
    old = run_of(simulation, "pay")
    simulation.wait(timedelta(seconds=60))
    back_to(simulation, "reserve")
    assert void_of(simulation, simulation.not_started(old)) is not None
    assert simulation.flow.runs[old.key].state is RunState.SUPERSEDED


def test_a_rule_that_tripped_at_what_was_taken_back_may_trip_again() -> None:
    simulation = granted(5, risky__on=("shop.v1.PaymentTaken",), risky__when="event.amount > 50")
    emit(simulation, "pay", "PaymentTaken", amount=95)
    assert simulation.flow.is_held
    back_to(simulation, "discount")
    assert not simulation.flow.trips
    emit(simulation, "pay", "PaymentTaken", amount=96)
    assert simulation.flow.is_held
    resume(simulation)
    assert run_of(simulation, "send").state is RunState.OWED


def test_a_rule_that_nobody_was_told_of_is_not_overtaken_by_going_back() -> None:
    simulation = Simulation(load("order"))
    simulation.coordinator = False
    simulation.say(simulation.start(make("OrderPlaced", risk=9), requester="kim"))
    emit(simulation, "reserve", "StockReserved", units=2)
    simulation.say(simulation.halt(HaltMode.HALT_MODE_COMPENSATE, "ola", "so", to_step="reserve"))
    simulation.coordinator = True
    simulation.settle()
    resume(simulation)
    assert simulation.flow.is_held


def test_a_rule_that_ended_the_flow_does_not_end_it_again_after_going_back() -> None:
    simulation = reserved(risky__on=("shop.v1.OrderPlaced",), risky__when="true", risky__then="FAIL")
    assert stands(simulation) == "FAILED"
    back_to(simulation, "reserve")
    assert stands(simulation) == "RUNNING"


def test_p7_what_strands_again_is_seen_again() -> None:
    simulation = begun()
    emit(simulation, "reserve", "StepCompleted")
    assert stands(simulation) == "ESCALATED"
    back_to(simulation, "reserve")
    assert [e.choices for e in simulation.flow.escalations.values()] != []
    assert stands(simulation) == "ESCALATED"


def test_a_proposal_that_waited_for_people_is_asked_about_anew() -> None:
    simulation = asked_beside_the_way(votes=["ann"])
    back_to(simulation, "reserve")
    proposal = proposal_of(simulation)
    assert proposal.state is ProposalState.PENDING
    assert [ask.voters for ask in proposal.asks] == [frozenset()]
    assert void_of(simulation, simulation.vote(proposal, "ann", LEAD)) is None, "it is another request"
    simulation.say(simulation.vote(proposal, "bob", LEAD))
    assert proposal_of(simulation).state is ProposalState.RELEASED


def test_a_proposal_whose_quorum_was_there_is_asked_about_anew_too() -> None:
    simulation = asked_beside_the_way(votes=["ann"])
    simulation.coordinator = False
    simulation.say(simulation.vote(proposal_of(simulation), "bob", LEAD))
    assert proposal_of(simulation).state is ProposalState.APPROVED
    simulation.say(simulation.halt(HaltMode.HALT_MODE_COMPENSATE, "ola", "so", to_step="reserve"))
    simulation.coordinator = True
    simulation.settle()
    resume(simulation)
    assert proposal_of(simulation).state is ProposalState.PENDING
    assert not any(ask.passed for ask in proposal_of(simulation).asks)


def test_a_proposal_released_after_the_floor_is_proposed_anew() -> None:
    simulation = asked_beside_the_way(votes=["ann", "bob"])
    released = proposal_of(simulation)
    assert released.state is ProposalState.RELEASED
    back_to(simulation, "reserve")
    assert simulation.flow.proposals[released.recorded.event_id].state is ProposalState.WITHDRAWN
    run = simulation.flow.runs["discount", released.recorded.event.root]
    assert (run.run, run.state) == (1, RunState.OWED)


def test_a_refusal_after_the_floor_is_taken_back_and_people_are_asked_anew() -> None:
    simulation = asked_beside_the_way(votes=[])
    simulation.say(simulation.vote(proposal_of(simulation), "ann", LEAD, approve=False))
    assert run_of(simulation, "refuse").state is RunState.OWED
    back_to(simulation, "reserve")
    assert run_of(simulation, "refuse").state is RunState.SUPERSEDED
    assert proposal_of(simulation).state is ProposalState.PENDING


def asked_beside_the_way(votes: list[str]) -> Simulation:
    """An order whose discount was proposed before its newest reservation: going back to that keeps the proposal."""
    simulation = granted(30)
    simulation.say(simulation.reopen(run_of(simulation, "reserve"), "ola"))
    emit(simulation, "reserve", "StockReserved", units=2)
    for voter in votes:
        simulation.say(simulation.vote(proposal_of(simulation), voter, LEAD))
    return simulation


def test_an_effect_of_what_was_taken_back_is_undone_while_the_flow_goes_on() -> None:
    simulation = granted(5, pay__retry__max_attempts="1")
    old = run_of(simulation, "pay")
    back_to(simulation, "reserve")
    late = simulation.say(simulation.outcome(old, make("PaymentTaken", amount=95)))
    assert simulation.flow.effects[late.event_id].orphan
    assert simulation.flow.effects[late.event_id].state is EffectState.UNDOING
    assert late.event_id not in simulation.flow.facts
    assert stands(simulation) == "RUNNING"
    assert "superseded" in simulation.flow.divergences[-1].text


def test_p7_a_flow_is_not_complete_while_the_effect_of_what_was_taken_back_stands() -> None:
    simulation = granted(5, pay__retry__max_attempts="1")
    old = run_of(simulation, "pay")
    back_to(simulation, "reserve")
    late = simulation.say(simulation.outcome(old, make("PaymentTaken", amount=95)))
    emit(simulation, "discount", "DiscountGranted", percent=5)
    emit(simulation, "pay", "PaymentTaken", amount=95)
    emit(simulation, "send", "ParcelSent")
    assert stands(simulation) == "RUNNING"
    simulation.say(simulation.undone(simulation.flow.effects[late.event_id], StepCompleted()))
    assert stands(simulation) == "COMPLETED"


def test_a_join_is_made_anew_from_what_is_done_anew() -> None:
    simulation = begun("offer")
    listing = run_of(simulation, "list")
    simulation.say(simulation.outcome(listing, make("PartFound", name="wheel"), index=0, total=2))
    simulation.say(simulation.outcome(listing, make("PartsListed", parts=1), index=1, total=2))
    emit(simulation, "price", "PartPriced", price=7)
    first = run_of(simulation, "offer")
    back_to(simulation, "list")
    assert simulation.flow.runs[first.key].state is RunState.SUPERSEDED
    emit(simulation, "price", "PartPriced", price=9)
    second = run_of(simulation, "offer")
    assert second.root != first.root
    assert second.state is RunState.OWED


def test_several_outputs_are_given_anew_together() -> None:
    simulation = begun("offer", list__effect="UNDOABLE", list__undo={"timeout": "9s"})
    listing = run_of(simulation, "list")
    simulation.say(simulation.outcome(listing, make("PartFound", name="wheel"), index=0, total=3))
    emit(simulation, "price", "PartPriced", price=7)
    simulation.say(simulation.outcome(listing, make("PartsListed", parts=1), index=1, total=3))
    simulation.say(simulation.failed(listing, "no", retryable=False))
    back_to(simulation, "price")
    run = run_of(simulation, "list")
    assert (run.run, run.state, dict(run.outputs)) == (1, RunState.OWED, {})
    late = simulation.say(simulation.outcome(listing, make("PartFound", name="late"), index=2, total=3))
    assert simulation.flow.effects[late.event_id].orphan, "an output of the older run is an effect to undo"
