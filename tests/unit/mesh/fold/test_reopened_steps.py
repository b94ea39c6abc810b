"""Steps that are done again by a decision."""

from __future__ import annotations

from handrail.mesh.flow import ProposalState, RunState
from handrail.v1.decision_pb2 import HaltMode
from handrail.v1.error_reason_pb2 import ErrorReason
from tests.support.orders import begun, emit, granted, proposal_of, reserved, run_of, stands, void_of

CANCEL = HaltMode.HALT_MODE_CANCEL


def test_done_again_is_a_new_run_with_a_new_answer() -> None:
    simulation = reserved()
    first = run_of(simulation, "reserve")
    simulation.say(simulation.reopen(first, "ola"))
    run = run_of(simulation, "reserve")
    assert (run.run, run.attempt, run.state, dict(run.outputs)) == (1, 1, RunState.OWED, {})
    emit(simulation, "reserve", "StockReserved", units=2)
    assert len(simulation.flow.facts_by_type["shop.v1.StockReserved"]) == 2


def test_a_failed_step_is_done_again_in_the_same_run_with_all_its_attempts() -> None:
    simulation = begun()
    simulation.say(simulation.failed(run_of(simulation, "reserve"), "no", retryable=False))
    simulation.say(simulation.reopen(run_of(simulation, "reserve"), "ola"))
    run = run_of(simulation, "reserve")
    assert (run.run, run.attempt, run.budget) == (0, 2, 4)
    assert stands(simulation) == "RUNNING"


def test_doing_a_step_again_takes_back_what_it_proposed() -> None:
    simulation = granted(30)
    first = proposal_of(simulation)
    simulation.say(simulation.reopen(run_of(simulation, "discount"), "ola"))
    assert simulation.flow.proposals[first.recorded.event_id].state is ProposalState.WITHDRAWN
    assert void_of(simulation, simulation.vote(first, "ann", ["sales_lead"])) is not None


def test_a_step_that_is_owed_is_not_done_again() -> None:
    simulation = begun()
    void = void_of(simulation, simulation.reopen(run_of(simulation, "reserve"), "ola"))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_WRONG_STATUS


def test_no_step_is_done_again_in_a_halted_flow() -> None:
    simulation = reserved()
    simulation.coordinator = False
    reopen = simulation.reopen(run_of(simulation, "reserve"), "ola")
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    assert void_of(simulation, reopen) is not None
    assert run_of(simulation, "reserve").state is RunState.DONE


def test_p4_a_reopening_that_lost_a_race_is_void() -> None:
    simulation = reserved()
    late = simulation.reopen(run_of(simulation, "reserve"), "ola")
    simulation.say(simulation.progress(run_of(simulation, "discount"), 1))
    simulation.say(simulation.reopen(run_of(simulation, "reserve"), "eva"))
    emit(simulation, "reserve", "StockReserved", units=2)
    assert void_of(simulation, late) is not None, "the step has been done again"
    assert run_of(simulation, "reserve").run == 1
