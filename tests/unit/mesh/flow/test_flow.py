"""A flow as a value: copies that part, and the questions that agents ask it."""

from __future__ import annotations

import pytest

from handrail.mesh.flow import Flow
from handrail.v1.decision_pb2 import HaltMode
from handrail.v1.failure_pb2 import StepCompleted
from tests.support.orders import begun, effect_of, emit, granted, load, paid, reserved, run_of, sent


def test_a_copy_changes_without_changing_what_it_was_copied_from() -> None:
    flow = paid().flow
    before = flow.copy()
    copy = flow.copy()
    for each in (copy.facts, copy.facts_by_type, copy.runs, copy.effects, copy.proposals, copy.void):
        each.clear()
    copy.escalations.clear()
    copy.trips.clear()
    assert flow == before != copy


def test_a_flow_that_has_not_begun_has_no_times() -> None:
    flow = Flow(load("order"))
    with pytest.raises(ValueError, match="no event yet"):
        _ = flow.deadline


def test_a_flow_knows_its_times_and_its_tag() -> None:
    simulation = reserved()
    flow = simulation.flow
    assert flow.deadline - flow.start_time == flow.template.deadline
    assert flow.flow_type == "order"
    assert flow.etag == "2"


def test_an_event_triggers_the_runs_that_wait_for_it() -> None:
    simulation = reserved()
    placed, stock = simulation.history
    assert [run.step.name for run in simulation.flow.runs_triggered_by(placed.event_id)] == ["reserve"]
    assert [run.step.name for run in simulation.flow.runs_triggered_by(stock.event_id)] == ["discount"]


def test_an_undo_is_wanted_in_its_running_attempt_alone() -> None:
    simulation = reserved()
    effect = effect_of(simulation, "StockReserved").recorded.event_id
    assert not simulation.flow.wants_undo(effect, 0)
    simulation.say(simulation.halt(HaltMode.HALT_MODE_CANCEL, "ola", "no"))
    assert simulation.flow.wants_undo(effect, 1)
    assert not simulation.flow.wants_undo(effect, 2)
    assert not simulation.flow.wants_undo("0" * 32, 1)
    simulation.say(simulation.undone(effect_of(simulation, "StockReserved"), StepCompleted()))
    assert not simulation.flow.wants_undo(effect, 1)


def test_what_is_to_be_undone_is_listed_newest_first_and_only_while_it_is_to_be() -> None:
    simulation = sent()
    assert simulation.flow.undo_targets() == []
    simulation.say(simulation.halt(HaltMode.HALT_MODE_COMPENSATE, "ola", "so"))
    assert [effect.step.name for effect in simulation.flow.undo_targets()] == ["pay", "reserve"]


def test_only_an_effect_makes_an_outcome_worth_waiting_for() -> None:
    assert [run.step.name for run in granted().flow.open_outcomes()] == ["pay"]
    assert reserved().flow.open_outcomes() == []


def test_the_position_of_a_step_is_that_of_its_newest_fact() -> None:
    simulation = reserved()
    assert simulation.flow.sequence_of_step("reserve") == 2
    assert simulation.flow.sequence_of_step("pay") == 0
    simulation.say(simulation.reopen(run_of(simulation, "reserve"), "ola"))
    newest = emit(simulation, "reserve", "StockReserved", units=2)
    assert simulation.flow.sequence_of_step("reserve") == newest.sequence


def test_what_a_flow_is_halted_for_shows() -> None:
    held, cancelled, running = begun(risk=9), reserved(), reserved()
    cancelled.say(cancelled.halt(HaltMode.HALT_MODE_CANCEL, "ola", "no", keep_effects=True))
    assert (held.flow.is_halted, held.flow.is_held, held.flow.goes_on, held.flow.is_undoing) == (
        True,
        True,
        True,
        False,
    )
    assert (cancelled.flow.is_halted, cancelled.flow.goes_on, cancelled.flow.is_undoing) == (True, False, False)
    assert (running.flow.is_halted, running.flow.goes_on) == (False, True)
