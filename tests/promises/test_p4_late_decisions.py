"""P4: of two messages that were made for the same state of a flow the first in the stream counts, and the second is
void by the fold's own rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from handrail.coordinator.decide import messages
from handrail.mesh.flow import Flow
from handrail.mesh.fold import fold
from handrail.mesh.wire.envelope import Entry
from handrail.v1.decision_pb2 import ApprovalCause, ApprovalRefused, FlowStatus, HaltMode
from handrail.v1.error_reason_pb2 import ErrorReason
from tests.support.fingerprint import fingerprint
from tests.support.orders import effect_of, load, make, proposal_of, run_of
from tests.support.simulation import Simulation

SECOND = timedelta(seconds=1)
Make = Callable[[Simulation], Entry]


# States of an order.


def reserving() -> Simulation:
    """The warehouse has to reserve; its time is up, and no coordinator has said so yet."""
    simulation = Simulation(load("order"))
    simulation.say(simulation.start(make("OrderPlaced", buyer="kim", units=1), requester="kim"))
    simulation.now += 31 * SECOND
    return simulation


def trying_again() -> Simulation:
    """The warehouse failed, and is to try again now."""
    simulation = reserving()
    simulation.now -= 20 * SECOND
    simulation.say(simulation.failed(run_of(simulation, "reserve"), "no"))
    simulation.now += 11 * SECOND
    return simulation


def asking() -> Simulation:
    """One of two people has agreed to a discount; the time to agree is up, and no coordinator has said so yet."""
    simulation = reserving()
    simulation.now -= 20 * SECOND
    simulation.say(simulation.outcome(run_of(simulation, "reserve"), make("StockReserved", units=1)))
    simulation.say(simulation.outcome(run_of(simulation, "discount"), make("DiscountGranted", percent=20)))
    simulation.say(simulation.vote(proposal_of(simulation), "ann", ["sales_lead"]))
    simulation.now += timedelta(hours=5)
    return simulation


def agreed() -> Simulation:
    """Both have agreed; no coordinator has released the discount yet."""
    simulation = asking()
    simulation.store(yes(simulation))
    return simulation


def undoing() -> Simulation:
    """The reservation has to be undone; the time for that is up, and no coordinator has said so yet."""
    simulation = asking()
    simulation.say(cancel(simulation))
    simulation.now += 21 * SECOND
    return simulation


# What somebody makes of them.


def answer(simulation: Simulation) -> Entry:
    return simulation.outcome(run_of(simulation, "reserve"), make("StockReserved", units=1))


def heartbeat(simulation: Simulation) -> Entry:
    return simulation.progress(run_of(simulation, "reserve"), 1)


def time_out(simulation: Simulation) -> Entry:
    return messages.step_timed_out(simulation.flow, run_of(simulation, "reserve"), simulation.now)


def again(simulation: Simulation) -> Entry:
    return messages.retry(simulation.flow, run_of(simulation, "reserve"), simulation.now)


def yes(simulation: Simulation) -> Entry:
    return simulation.vote(proposal_of(simulation), "bob", ["sales_lead"])


def no(simulation: Simulation) -> Entry:
    return simulation.vote(proposal_of(simulation), "cat", ["sales_lead"], approve=False)


def expiry(simulation: Simulation) -> Entry:
    proposal = proposal_of(simulation)
    refusal = ApprovalRefused(
        proposal_id=proposal.recorded.event_id,
        digest=proposal.digest,
        cause=ApprovalCause.APPROVAL_CAUSE_EXPIRY,
        proposal=proposal.recorded.event.data,
    )
    return messages.decision(simulation.flow, refusal, about=refusal.proposal_id, now=simulation.now)


def release(simulation: Simulation) -> Entry:
    return messages.release(proposal_of(simulation))


def cancel(simulation: Simulation) -> Entry:
    return simulation.halt(HaltMode.HALT_MODE_CANCEL, "ola", "so")


def undone(simulation: Simulation) -> Entry:
    return simulation.undone(effect_of(simulation, "StockReserved"), make("StockReleased"))


def undo_time_out(simulation: Simulation) -> Entry:
    return messages.undo_timed_out(
        simulation.flow, effect_of(simulation, "StockReserved"), simulation.now, simulation.now
    )


def end(simulation: Simulation) -> Entry:
    return messages.closed(simulation.flow, FlowStatus.FLOW_STATUS_CANCELLED, "so", simulation.now)


@dataclass(frozen=True)
class Race:
    """Two messages made for the same state, and why the second does not count."""

    state: Callable[[], Simulation]
    first: Make
    second: Make
    reason: ErrorReason.ValueType = ErrorReason.ERROR_REASON_UNSPECIFIED

    def __str__(self) -> str:
        return f"{self.first.__name__} before {self.second.__name__}"


CLOSED = ErrorReason.ERROR_REASON_APPROVAL_CLOSED

RACES = [
    Race(reserving, answer, time_out),
    Race(reserving, heartbeat, time_out),
    Race(trying_again, answer, again),
    Race(asking, yes, expiry),
    Race(asking, expiry, yes, CLOSED),
    Race(asking, yes, no, CLOSED),
    Race(asking, no, yes, CLOSED),
    Race(asking, cancel, yes, CLOSED),
    Race(agreed, cancel, release),
    Race(undoing, undone, undo_time_out),
    Race(undoing, undo_time_out, end),
]


@pytest.mark.parametrize("race", RACES, ids=str)
def test_p4_the_second_of_two_that_raced_is_void_and_changes_nothing(race: Race) -> None:
    simulation = race.state()
    simulation.coordinator = False
    first, second = race.first(simulation), race.second(simulation)
    simulation.store(first)
    assert simulation.flow.last_sequence not in simulation.flow.void, "the first one counts"
    before = simulation.flow
    seen = fingerprint(before)
    simulation.store(second)
    after = simulation.flow
    assert after.void[after.last_sequence].reason == race.reason
    assert essence(after) == essence(before)
    assert fingerprint(before) == seen, "who has read the flow before keeps what was read"
    # Whoever reads it, at once or message by message, and when the coordinator goes on from there.
    assert fold(simulation.template, simulation.history) == after
    simulation.coordinator = True
    simulation.settle()


# A flow whose effect stands is never closed: neither first nor second.
@pytest.mark.parametrize("race", [race for race in RACES if race.second is not end], ids=str)
def test_p4_alone_the_second_would_have_counted(race: Race) -> None:
    """Which of two comes first decides, not which of them it is."""
    simulation = race.state()
    simulation.coordinator = False
    simulation.store(race.second(simulation))
    assert simulation.flow.last_sequence not in simulation.flow.void


def essence(flow: Flow) -> Flow:
    """A flow without what merely says that there was one more message."""
    return replace(flow, void={}, divergences=(), last_sequence=0, last_time=None, message_count=0)
