"""What a fact sets off: step runs, joins, and rules."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from handrail.coordinator.decide import messages
from handrail.mesh.flow import RunState
from handrail.mesh.fold import evolve, fold
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import pack
from handrail.v1.decision_pb2 import Choice, HaltMode, RuleTripped
from handrail.v1.event_pb2 import Event
from tests.support.orders import begun, emit, make, paid, reserved, run_of, sent, stands, types, void_of
from tests.support.simulation import Simulation


def found(parts: int, names: list[str]) -> Simulation:
    """An offer whose parts were listed, as so many, and found by these names."""
    simulation = begun("offer")
    listing, total = run_of(simulation, "list"), len(names) + 1
    for index, name in enumerate(names):
        simulation.say(simulation.outcome(listing, make("PartFound", name=name), index=index, total=total))
    listed = make("PartsListed", parts=parts)
    simulation.say(simulation.outcome(listing, listed, index=total - 1, total=total))
    return simulation


def price(simulation: Simulation, at: int) -> None:
    run = [run for run in simulation.flow.runs.values() if run.step.name == "price"][at]
    simulation.say(simulation.outcome(run, make("PartPriced", price=at)))


def offers(simulation: Simulation) -> list[tuple[str, ...]]:
    return [run.inputs for run in simulation.flow.runs.values() if run.step.name == "offer"]


def test_each_trigger_gives_its_own_run() -> None:
    simulation = found(2, ["wheel", "frame"])
    runs = [run for run in simulation.flow.runs.values() if run.step.name == "price"]
    assert len({run.root for run in runs}) == 2
    assert all(run.inputs == (run.root,) == (run.trigger.event_id,) for run in runs)
    assert all(run.deadline == run.trigger.time + timedelta(seconds=30) for run in runs)


def test_a_join_runs_once_all_its_inputs_are_there() -> None:
    simulation = found(2, ["wheel", "frame"])
    price(simulation, 1)
    assert offers(simulation) == []
    price(simulation, 0)
    facts = simulation.flow.facts_by_type
    inputs = [*facts["shop.v1.PartsListed"], *facts["shop.v1.PartPriced"]]
    event_ids = tuple(r.event_id for r in sorted(inputs, key=lambda r: r.sequence))
    assert offers(simulation) == [event_ids]
    run = run_of(simulation, "offer")
    assert run.root == ids.join_root(event_ids)
    assert run.trigger.event_id == event_ids[-1], "its last input hands it out"


def test_a_join_waits_for_what_its_count_is_told_from() -> None:
    simulation = begun("offer")
    listing = run_of(simulation, "list")
    simulation.say(simulation.outcome(listing, make("PartFound", name="wheel"), index=0, total=2))
    price(simulation, 0)
    assert offers(simulation) == []
    simulation.say(simulation.outcome(listing, make("PartsListed", parts=1), index=1, total=2))
    assert len(offers(simulation)) == 1


def test_a_join_takes_as_many_as_it_counts_and_no_more_and_runs_once() -> None:
    simulation = found(1, ["wheel", "frame", "bell"])
    price(simulation, 0)
    first = simulation.flow.facts_by_type["shop.v1.PartPriced"][0]
    (inputs,) = offers(simulation)
    assert first.event_id in inputs
    assert len(inputs) == 2
    price(simulation, 1)
    price(simulation, 2)
    assert offers(simulation) == [inputs]


def test_a_join_runs_once_even_if_its_count_changes() -> None:
    simulation = found(1, ["wheel", "frame"])
    price(simulation, 0)
    price(simulation, 1)
    simulation.say(simulation.reopen(run_of(simulation, "list"), "ola"))
    emit(simulation, "list", "PartsListed", parts=2)
    assert len(offers(simulation)) == 1


def test_a_join_that_waits_for_none_of_a_type_does_not_wait() -> None:
    assert len(offers(found(0, []))) == 1


def test_a_join_takes_the_first_ones_when_it_could_take_more() -> None:
    simulation = begun("offer")
    listing = run_of(simulation, "list")
    for index in range(2):
        simulation.say(simulation.outcome(listing, make("PartFound"), index=index, total=3))
    price(simulation, 0)
    price(simulation, 1)
    simulation.say(simulation.outcome(listing, make("PartsListed", parts=1), index=2, total=3))
    (inputs,) = offers(simulation)
    prices = simulation.flow.facts_by_type["shop.v1.PartPriced"]
    assert prices[0].event_id in inputs
    assert prices[1].event_id not in inputs


def test_p7_a_join_that_starves_is_seen() -> None:
    simulation = found(5, ["wheel"])
    price(simulation, 0)
    assert stands(simulation) == "ESCALATED"


def test_a_void_message_triggers_nothing() -> None:
    simulation = begun()
    entry = simulation.outcome(run_of(simulation, "reserve"), make("StockReserved", units=-1))
    assert void_of(simulation, entry) is not None
    assert len(simulation.flow.runs) == 1


def test_a_rule_looks_at_each_fact_it_names_and_at_the_flow_so_far() -> None:
    simulation = paid(
        risky__on=("shop.v1.PaymentTaken",), risky__when="event.amount > 90 && flow.elapsed >= duration('0s')"
    )
    assert simulation.flow.trips["risky"].sequence == simulation.flow.facts_by_type["shop.v1.PaymentTaken"][0].sequence


def test_a_rule_counts_facts() -> None:
    simulation = reserved(risky__on=("shop.v1.StockReserved",), risky__when="flow.counts['shop.v1.StockReserved'] > 1")
    assert not simulation.flow.trips
    simulation.say(simulation.reopen(run_of(simulation, "reserve"), "ola"))
    emit(simulation, "reserve", "StockReserved", units=2)
    assert simulation.flow.trips


def test_p6_a_rule_that_can_not_be_evaluated_trips() -> None:
    simulation = reserved(risky__on=("shop.v1.StockReserved",), risky__when="1 / (event.units - 2) > 5")
    assert "can't be evaluated" in simulation.flow.trips["risky"].detail
    assert simulation.flow.is_held


def test_a_rule_trips_once() -> None:
    simulation = reserved(risky__on=("shop.v1.StockReserved",), risky__when="true")
    first = simulation.flow.trips["risky"]
    resume(simulation)
    simulation.say(simulation.reopen(run_of(simulation, "reserve"), "ola"))
    emit(simulation, "reserve", "StockReserved", units=2)
    assert simulation.flow.trips["risky"].event_id == first.event_id
    assert stands(simulation) == "RUNNING"


def resume(simulation: Simulation) -> None:
    (escalation,) = simulation.flow.escalations
    simulation.say(simulation.resolve(escalation, Choice.CHOICE_RESUME, "ola"))


def test_p6_a_rule_trips_while_the_flow_is_held_for_another() -> None:
    rules = tuple(
        {"name": name, "on": (on,), "when": "true", "then": "ESCALATE"}
        for name, on in (("first", "shop.v1.OrderPlaced"), ("second", "shop.v1.StockReserved"))
    )
    simulation = begun(flow__rules=rules)
    emit(simulation, "reserve", "StockReserved", units=2)
    assert [trip.settled for trip in simulation.flow.trips.values()] == [True, True]
    assert len(simulation.flow.escalations) == 2


def test_a_rule_that_ends_the_flow_does_so_while_it_is_held() -> None:
    rules = (
        {"name": "first", "on": ("shop.v1.OrderPlaced",), "when": "true", "then": "ESCALATE"},
        {"name": "second", "on": ("shop.v1.StockReserved",), "when": "true", "then": "FAIL"},
    )
    simulation = begun(flow__rules=rules)
    emit(simulation, "reserve", "StockReserved", units=2)
    assert stands(simulation) == "FAILED"


def test_no_rule_trips_in_a_flow_that_is_ending() -> None:
    simulation = reserved(risky__on=("shop.v1.PaymentTaken",), risky__when="true")
    emit(simulation, "discount", "DiscountGranted", percent=5)
    simulation.say(simulation.halt(HaltMode.HALT_MODE_CANCEL, "ola", "no"))
    emit(simulation, "pay", "PaymentTaken", amount=95)
    assert not simulation.flow.trips


def test_p4_a_trip_is_recorded_once_and_for_the_event_it_tripped_at() -> None:
    simulation = begun(risk=9)
    for trip in (RuleTripped(rule="risky", sequence=1), RuleTripped(rule="other")):
        entry = messages.decision(simulation.flow, trip, about=trip.rule, now=simulation.now)
        assert void_of(simulation, entry) is not None
    assert types(simulation).count("RuleTripped") == 3


@pytest.mark.parametrize("changed", ["rule_digest", "inputs"])
def test_p4_a_trip_in_another_wording_or_on_other_inputs_is_void(changed: str) -> None:
    simulation = begun(risk=9)
    recorded = simulation.history[1]
    tripped = RuleTripped.FromString(recorded.event.data.value)
    if changed == "inputs":
        tripped.inputs.latest["shop.v1.OrderPlaced"] = "f" * 32
    else:
        tripped.rule_digest = "0" * 64
    flow = fold(simulation.flow.template, simulation.history[:1])
    event = Event.FromString(recorded.event.SerializeToString())
    event.data.CopyFrom(pack(tripped))
    void = evolve(flow, replace(recorded, event=event)).void
    assert "wording, or on these inputs" in void[recorded.sequence].text
    assert not evolve(flow, recorded).void


@pytest.mark.parametrize("then,ends", [("ESCALATE", "ESCALATED"), ("COMPENSATE", "COMPENSATING"), ("FAIL", "FAILED")])
def test_a_rule_at_the_completing_event_still_has_its_consequence(then: str, ends: str) -> None:
    simulation = sent(risky__on=("shop.v1.ParcelSent",), risky__when="true", risky__then=then)
    assert stands(simulation) == ends


def test_a_step_may_wait_for_a_refusal() -> None:
    simulation = reserved()
    emit(simulation, "discount", "DiscountGranted", percent=30)
    proposal = next(iter(simulation.flow.proposals.values()))
    refusal = simulation.say(simulation.vote(proposal, "ann", ["sales_lead"], approve=False))
    assert run_of(simulation, "refuse").root == refusal.event_id
    assert run_of(simulation, "refuse").state is RunState.OWED
