"""Halts and ends: who may stop a flow, when, and when it is over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from handrail.coordinator.decide import decide, messages
from handrail.mesh.flow import Flow
from handrail.mesh.fold import halts, is_complete, settled
from handrail.mesh.fold.halts import may_halt
from handrail.mesh.wire.envelope import Entry
from handrail.v1.decision_pb2 import Choice, FlowClosed, FlowHalted, FlowStatus, HaltMode, RuleTripped
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import StepCompleted
from tests.support.orders import begun, effect_of, emit, granted, paid, reserved, run_of, sent, stands, types, void_of
from tests.support.simulation import Simulation

HOLD, COMPENSATE, CANCEL, FAIL, COMPLETE = (
    HaltMode.HALT_MODE_HOLD,
    HaltMode.HALT_MODE_COMPENSATE,
    HaltMode.HALT_MODE_CANCEL,
    HaltMode.HALT_MODE_FAIL,
    HaltMode.HALT_MODE_COMPLETE,
)
ALL = {HOLD, COMPENSATE, CANCEL, FAIL, COMPLETE}


def held() -> Simulation:
    return begun(risk=9)


def cancelled(*, keep: bool) -> Simulation:
    simulation = reserved()
    simulation.say(simulation.halt(CANCEL, "ola", "no", keep_effects=keep))
    if not keep:
        simulation.say(simulation.undone(effect_of(simulation, "StockReserved"), StepCompleted()))
    return simulation


def going_back() -> Simulation:
    simulation = paid()
    simulation.say(simulation.halt(COMPENSATE, "ola", "so", to_step="reserve"))
    return simulation


def failed() -> Simulation:
    return begun(risk=9, risky__then="FAIL")


def undoing() -> Simulation:
    simulation = paid()
    simulation.say(simulation.halt(COMPENSATE, "ola", "so"))
    return simulation


@pytest.mark.parametrize(
    "make,allowed",
    [
        (begun, ALL),
        (sent, {COMPENSATE}),
        (held, ALL - {HOLD}),
        (going_back, ALL - {HOLD}),
        (undoing, set()),
        (failed, {COMPENSATE}),
        (lambda: cancelled(keep=True), {COMPENSATE}),
        (lambda: cancelled(keep=False), set()),
    ],
    ids=["running", "complete", "held", "going back", "undoing", "failed", "kept", "undone"],
)
def test_which_halts_change_anything(make: Callable[[], Simulation], allowed: set[HaltMode.ValueType]) -> None:
    assert {mode for mode in ALL if may_halt(make().flow, mode)} == allowed


@pytest.mark.parametrize(
    "message",
    [
        FlowHalted(mode=HaltMode.HALT_MODE_UNSPECIFIED, by="ola"),
        FlowHalted(mode=77, by="ola"),  # type: ignore[arg-type]
        FlowHalted(mode=COMPENSATE, by="ola", to_step="pay"),
        FlowHalted(mode=COMPENSATE, by="ola", to_step="no_such_step"),
        FlowHalted(mode=CANCEL, by="ola", to_step="reserve"),
        FlowHalted(mode=COMPENSATE, by="ola", keep_effects=True),
        FlowHalted(mode=HOLD, by="ola"),
    ],
)
def test_a_halt_that_makes_no_sense_is_void(message: FlowHalted) -> None:
    simulation = reserved()
    assert void_of(simulation, messages.decision(simulation.flow, message, about="", now=simulation.now)) is not None
    assert simulation.flow.halt is None


def test_p4_a_halt_for_a_failure_that_settled_itself_is_void() -> None:
    simulation = granted(5, pay__retry__max_attempts="1")
    simulation.coordinator = False
    simulation.say(simulation.failed(run_of(simulation, "pay"), "no"))
    stale = decide(simulation.flow, simulation.now)
    assert stale is not None
    assert stale.address.message_type == "handrail.v1.FlowHalted"
    emit(simulation, "pay", "PaymentTaken", amount=95)
    assert void_of(simulation, stale) is not None, "the payment was made after all"
    assert stands(simulation) == "RUNNING"


def test_p4_a_halt_that_the_template_asks_for_is_taken_once() -> None:
    simulation = begun(risk=9)
    again = messages.halted(simulation.flow, HOLD, "again", simulation.now)
    assert void_of(simulation, again) is not None
    escalation = next(iter(simulation.flow.escalations))
    simulation.say(simulation.resolve(escalation, Choice.CHOICE_RESUME, "ola"))
    late = messages.halted(simulation.flow, HOLD, "late", simulation.now)
    assert void_of(simulation, late) is not None, "the rule has been answered"


def test_a_person_may_halt_without_a_reason_in_the_template() -> None:
    simulation = reserved()
    assert void_of(simulation, simulation.halt(CANCEL, "ola", "just so")) is None
    assert void_of(simulation, messages.halted(simulation.flow, FAIL, "nobody said so", simulation.now)) is not None


def test_a_halt_that_comes_twice_is_refused() -> None:
    simulation = undoing()
    void = void_of(simulation, simulation.halt(CANCEL, "eva", "me too"))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_WRONG_STATUS


@pytest.mark.parametrize("policy,ends", [("COMPENSATE", "COMPENSATING"), ("FAIL", "FAILED"), ("ESCALATE", "ESCALATED")])
def test_a_step_that_fails_for_good_does_what_its_template_says(policy: str, ends: str) -> None:
    simulation = granted(5, pay__on_failure=policy)
    simulation.say(simulation.failed(run_of(simulation, "pay"), "no", retryable=False))
    assert stands(simulation) == ends


def test_on_hold_a_failed_step_waits_for_the_person_who_looks() -> None:
    simulation = reserved(risky__on=("shop.v1.StockReserved",), risky__when="true", discount__on_failure="FAIL")
    simulation.say(simulation.failed(run_of(simulation, "discount"), "no"))
    assert simulation.flow.is_held
    simulation.say(simulation.resolve(next(iter(simulation.flow.escalations)), Choice.CHOICE_RESUME, "ola"))
    assert stands(simulation) == "FAILED"


def test_going_back_has_its_floor_from_the_moment_of_the_halt() -> None:
    simulation = paid()
    simulation.say(simulation.reopen(run_of(simulation, "discount"), "ola"))
    simulation.say(simulation.halt(COMPENSATE, "ola", "so", to_step="discount"))
    emit(simulation, "discount", "DiscountGranted", percent=5)
    assert effect_of(simulation, "PaymentTaken") in simulation.flow.undo_targets(), "a newer fact moves nothing"


def test_a_flow_closes_with_what_follows_from_its_halt_alone() -> None:
    simulation = undoing()
    for status in (FlowStatus.FLOW_STATUS_COMPENSATED, FlowStatus.FLOW_STATUS_FAILED):
        early = messages.closed(simulation.flow, status, "early", simulation.now)
        assert void_of(simulation, early) is not None
    assert not simulation.flow.closed
    assert settled(simulation.flow) is None


def test_a_running_flow_is_not_closed_by_decision() -> None:
    simulation = sent()
    closing = messages.decision(
        simulation.flow,
        FlowClosed(status=FlowStatus.FLOW_STATUS_COMPLETED),
        about="",
        now=simulation.now,
    )
    assert void_of(simulation, closing) is not None
    assert stands(simulation) == "COMPLETED"


def test_a_flow_is_closed_once() -> None:
    simulation = failed()
    again = messages.closed(simulation.flow, FlowStatus.FLOW_STATUS_FAILED, "again", simulation.now)
    assert void_of(simulation, again) is not None


def test_p1_a_happy_flow_is_complete_by_its_facts() -> None:
    simulation = sent()
    assert is_complete(simulation.flow)
    assert decide(simulation.flow, simulation.now + timedelta(days=9)) is None
    assert "FlowClosed" not in types(simulation)


def test_a_completing_fact_is_not_enough_while_something_is_owed() -> None:
    simulation = paid()
    simulation.say(simulation.reopen(run_of(simulation, "discount"), "ola"))
    emit(simulation, "send", "ParcelSent")
    assert stands(simulation) == "RUNNING"


def test_a_complete_flow_that_is_flooded_stays_complete() -> None:
    simulation = sent()
    flow = simulation.flow.copy()
    flow.message_count = 2_000
    assert halts.due(flow) is None
    assert decide(flow, simulation.now) is None


def test_a_flooded_flow_is_held_and_can_only_end() -> None:
    flow = flooded()
    due = halts.due(flow)
    assert due is not None
    assert due.mode == HOLD


def flooded() -> Flow:
    flow = reserved().flow.copy()
    flow.message_count = 900
    return flow


def test_a_flow_that_a_rule_completed_can_be_compensated() -> None:
    simulation = reserved(risky__on=("shop.v1.StockReserved",), risky__when="true", risky__then="COMPLETE")
    assert stands(simulation) == "COMPLETED"
    simulation.say(simulation.halt(COMPENSATE, "ola", "so"))
    assert stands(simulation) == "COMPENSATING"


def test_an_answer_on_its_way_is_not_lost_to_a_hold() -> None:
    simulation = begun(risky__on=("shop.v1.StockReserved",), risky__when="event.units > 50")
    simulation.say(simulation.failed(run_of(simulation, "reserve"), "no", retryable=False))
    simulation.coordinator = False
    simulation.say(simulation.resolve(next(iter(simulation.flow.escalations)), Choice.CHOICE_CANCEL, "ola"))
    emit(simulation, "reserve", "StockReserved", units=60)
    simulation.store(tripped(simulation))
    simulation.store(messages.halted(simulation.flow, HOLD, "look", simulation.now))
    assert simulation.flow.is_held
    simulation.coordinator = True
    simulation.settle()
    assert stands(simulation) == "COMPENSATING"


def tripped(simulation: Simulation) -> Entry:
    trip = simulation.flow.trips["risky"]
    message = RuleTripped(rule="risky", sequence=trip.sequence)
    return messages.decision(simulation.flow, message, about="risky", now=simulation.now)
