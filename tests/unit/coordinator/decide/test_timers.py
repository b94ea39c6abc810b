"""Timers: what wakes the coordinator. P7: where something is owed, something wakes it."""

from __future__ import annotations

from datetime import timedelta

from handrail.coordinator.decide.timers import timers
from handrail.mesh.wire.subjects import timer_subject
from handrail.v1.decision_pb2 import Choice, HaltMode
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
    sent,
)
from tests.support.simulation import Simulation


def wanted(simulation: Simulation) -> dict[str, timedelta]:
    """What is waited for, without ids, and how long from now."""
    return {name.partition("-")[0]: due - simulation.now for name, due in timers(simulation.flow).items()}


def test_a_flow_that_is_over_or_has_not_begun_wants_none() -> None:
    assert timers(Simulation(load("order")).flow) == {}
    assert timers(sent().flow) == {}
    assert timers(begun(risk=9, risky__then="FAIL").flow) == {}


def test_a_running_flow_wants_one_for_each_run_and_one_for_its_deadline() -> None:
    assert wanted(begun()) == {"reserve": timedelta(seconds=30), "deadline": timedelta(days=1)}


def test_a_run_in_backoff_wants_the_end_of_its_backoff() -> None:
    simulation = begun()
    simulation.say(simulation.failed(run_of(simulation, "reserve"), "no"))
    assert wanted(simulation)["reserve"] == timedelta(seconds=10)


def test_an_approval_wants_its_first_expiry() -> None:
    simulation = granted(30)
    assert wanted(simulation)["approval"] == timedelta(hours=4)
    simulation.say(simulation.vote(proposal_of(simulation), "ann", ["sales_lead"], approve=False))
    assert "approval" not in wanted(simulation)


def test_an_undo_wants_its_deadline_and_then_its_backoff() -> None:
    simulation = reserved()
    simulation.say(simulation.halt(HaltMode.HALT_MODE_CANCEL, "ola", "no"))
    assert wanted(simulation) == {"undo": timedelta(seconds=20)}
    simulation.say(simulation.undo_failed(effect_of(simulation, "StockReserved"), "no"))
    assert wanted(simulation) == {"undo": timedelta(seconds=5)}


def test_a_halted_flow_watches_only_what_may_have_had_an_effect() -> None:
    simulation = granted()
    simulation.say(simulation.halt(HaltMode.HALT_MODE_CANCEL, "ola", "no"))
    assert wanted(simulation) == {"pay": timedelta(seconds=60)}
    simulation.say(simulation.failed(run_of(simulation, "pay"), "no"))
    assert set(wanted(simulation)) == {"undo"}


def test_a_held_flow_still_has_its_deadline_and_its_expiries() -> None:
    simulation = reserved(risky__on=("shop.v1.StockReserved",), risky__when="event.units > 5")
    simulation.say(simulation.reopen(run_of(simulation, "reserve"), "ola"))
    emit(simulation, "discount", "DiscountGranted", percent=30)
    emit(simulation, "reserve", "StockReserved", units=9)
    assert set(wanted(simulation)) == {"approval", "deadline"}


def test_a_deadline_that_was_answered_wakes_nobody_again() -> None:
    simulation = paid(send__timeout="200000s")
    simulation.wait(timedelta(days=1))
    assert set(wanted(simulation)) == {"send"}
    escalation = next(iter(simulation.flow.escalations))
    simulation.say(simulation.resolve(escalation, Choice.CHOICE_RESUME, "ola"))
    assert set(wanted(simulation)) == {"send"}


def test_a_timer_is_named_by_what_it_waits_for_and_when() -> None:
    simulation = begun()
    before = set(timers(simulation.flow))
    simulation.wait(timedelta(seconds=5))
    simulation.say(simulation.progress(run_of(simulation, "reserve"), 1))
    moved = set(timers(simulation.flow)) - before
    assert len(moved) == 1, "another time, another name: the old one can't replace it"
    assert len(set(timers(simulation.flow)) & before) == 1, "the deadline stays"
    for name in moved | before:
        assert timer_subject("order", simulation.flow_id, name)


def test_each_run_of_a_fan_out_has_its_own() -> None:
    simulation = begun("offer")
    listing = run_of(simulation, "list")
    simulation.say(simulation.outcome(listing, make("PartFound", name="a"), index=0, total=3))
    simulation.say(simulation.outcome(listing, make("PartFound", name="b"), index=1, total=3))
    assert len([name for name in timers(simulation.flow) if name.startswith("price-")]) == 2
