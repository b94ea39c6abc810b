"""Attempts in halted flows: what runs, what is answered, and what is dropped."""

from __future__ import annotations

from datetime import timedelta

import pytest

from handrail.mesh.flow import RunState, Verdict
from handrail.v1.decision_pb2 import HaltMode
from tests.support.orders import begun, emit, granted, make, paid, reserved, run_of, types
from tests.support.simulation import Simulation

CANCEL = HaltMode.HALT_MODE_CANCEL


@pytest.mark.parametrize(
    "may_have_started,expected", [(False, Verdict.ANSWER_NOT_STARTED), (True, Verdict.RUN)], ids=["first", "again"]
)
def test_p8_in_a_halted_flow_only_what_may_have_started_runs(may_have_started: bool, expected: Verdict) -> None:
    simulation = granted()
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    assert verdict(simulation, "pay", 1, may_have_started=may_have_started) is expected


def test_p8_a_retry_in_a_halted_flow_runs_where_an_earlier_attempt_may_have_started() -> None:
    unknown, known = granted(), granted()
    unknown.wait(timedelta(seconds=60))
    known.say(known.failed(run_of(known, "pay"), "no"))
    for simulation in (unknown, known):
        simulation.wait(timedelta(seconds=10))
        simulation.say(simulation.halt(CANCEL, "ola", "no"))
    assert verdict(unknown, "pay", 2) is Verdict.RUN
    assert verdict(known, "pay", 2) is Verdict.ANSWER_NOT_STARTED


def test_p8_what_can_not_be_undone_and_was_triggered_in_a_halted_flow_is_never_begun() -> None:
    """A payment that was under way when the flow was cancelled comes in: the parcel it leads to is not sent, although
    the worker that was handed it is silent.
    """
    simulation = granted()
    simulation.coordinator = False
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    emit(simulation, "pay", "PaymentTaken", amount=95)
    assert verdict(simulation, "send", 1, may_have_started=True) is Verdict.ANSWER_NOT_STARTED
    simulation.coordinator = True
    simulation.wait(run_of(simulation, "send").step.timeout + timedelta(seconds=1))
    assert run_of(simulation, "send").attempt == 1, "nobody is asked to try again"
    assert not run_of(simulation, "send").unknown
    assert not simulation.flow.escalations
    assert simulation.flow.effects[run_of(simulation, "send").root].attempt == 1, "the payment is taken back"


def test_p8_what_can_not_be_undone_runs_again_where_it_may_have_begun_before_the_halt() -> None:
    simulation = paid()
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    assert verdict(simulation, "send", 1, may_have_started=True) is Verdict.RUN


def test_a_step_without_effect_never_runs_in_a_halted_flow() -> None:
    simulation = reserved()
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    assert verdict(simulation, "discount", 1, may_have_started=True) is Verdict.ANSWER_NOT_STARTED


def test_a_rule_that_tripped_halts_at_once_for_agents() -> None:
    simulation = Simulation(begun().template)
    simulation.coordinator = False
    simulation.say(simulation.start(make("OrderPlaced", risk=9), agent="storefront"))
    assert simulation.flow.halt is None
    assert verdict(simulation, "reserve", 1) is Verdict.ANSWER_NOT_STARTED


def test_a_delivery_that_is_no_longer_wanted_is_dropped() -> None:
    simulation = begun()
    assert verdict(simulation, "reserve", 1) is Verdict.RUN
    assert verdict(simulation, "reserve", 2) is Verdict.DROP
    assert verdict(simulation, "reserve", 1, run=1) is Verdict.DROP
    assert verdict(simulation, "pay", 1) is Verdict.DROP
    emit(simulation, "reserve", "StockReserved", units=2)
    assert verdict(simulation, "reserve", 1) is Verdict.DROP


def test_an_agent_that_comes_back_to_a_halted_flow_says_that_it_never_started() -> None:
    simulation = granted()
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    simulation.wait(timedelta(seconds=60))
    assert run_of(simulation, "pay").state is RunState.BACKOFF
    assert verdict(simulation, "pay", 1) is Verdict.ANSWER_NOT_STARTED
    assert verdict(simulation, "pay", 1, may_have_started=True) is Verdict.DROP


def verdict(
    simulation: Simulation, step: str, attempt: int, *, may_have_started: bool = False, run: int = 0
) -> Verdict:
    roots = [each.root for each in simulation.flow.runs.values() if each.step.name == step]
    return simulation.flow.verdict(
        step=step, root=roots[-1] if roots else "", run=run, attempt=attempt, may_have_started=may_have_started
    )


def test_nothing_is_retried_in_a_halted_flow_that_leaves_nothing_unknown() -> None:
    simulation = reserved()
    simulation.say(simulation.failed(run_of(simulation, "discount"), "no"))
    simulation.say(simulation.halt(CANCEL, "ola", "no"))
    simulation.wait(timedelta(hours=1))
    assert "DiscountGranted" not in types(simulation)
