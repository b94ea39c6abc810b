"""Divergences: in what way an agent left its template, in which version of it, and when."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.mesh.fold import begin, evolve
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.subjects import Address, Kind
from handrail.v1.decision_pb2 import FlowClosed
from handrail.v1.failure_pb2 import Divergence, DivergenceKind, StepCompleted
from tests.support.orders import begun, emit, load, make, reserved, run_of
from tests.support.simulation import Simulation
from tests.unit.mesh.fold.test_flow_properties import anything


def _in_another_version(simulation: Simulation) -> Entry:
    entry = simulation.outcome(run_of(simulation, "reserve"), make("StockReserved"))
    entry.event.template_version = 7
    return entry


def _elsewhere(simulation: Simulation, *, step: str = "reserve", root: str = "") -> Entry:
    """The outcome of `reserve` as if it were one of this step, with this root."""
    entry = simulation.outcome(run_of(simulation, "reserve"), make("StockReserved"))
    event = entry.event
    event.step, event.root = step, root or event.root
    event.event_id = ids.outcome_id(event.flow_id, step, event.root, 0, 0)
    return Entry(entry.address._replace(event_id=event.event_id), event)


def _decision(simulation: Simulation) -> Entry:
    entry = simulation.outcome(run_of(simulation, "reserve"), FlowClosed())
    return Entry(entry.address._replace(kind=Kind.DECISION), entry.event)


def _undone(simulation: Simulation) -> Entry:
    entry = simulation.outcome(run_of(simulation, "reserve"), StepCompleted())
    event = entry.event
    event.event_id = ids.undone_id(event.flow_id, event.root)
    return Entry(entry.address._replace(kind=Kind.UNDONE, event_id=event.event_id), event)


def _second_answer() -> tuple[Simulation, Entry]:
    simulation = begun("offer")
    run = run_of(simulation, "list")
    emit(simulation, "list", "PartsListed", parts=0)
    return simulation, simulation.outcome(run, make("PartFound"))


def _of_reserve(message: str, **how: object) -> Callable[[], tuple[Simulation, Entry]]:
    def case() -> tuple[Simulation, Entry]:
        simulation = begun()
        return simulation, simulation.outcome(run_of(simulation, "reserve"), make(message), **how)  # type: ignore[arg-type]

    return case


def _begun(entry: Callable[[Simulation], Entry]) -> Callable[[], tuple[Simulation, Entry]]:
    def case() -> tuple[Simulation, Entry]:
        simulation = begun()
        return simulation, entry(simulation)

    return case


def _gate_bypassed() -> tuple[Simulation, Entry]:
    simulation = reserved()
    return simulation, simulation.outcome(run_of(simulation, "discount"), make("DiscountGranted"), kind=Kind.EVENT)


def _broken() -> tuple[Simulation, Entry]:
    simulation = begun()
    return simulation, simulation.outcome(run_of(simulation, "reserve"), make("StockReserved", units=-1))


WAYS: dict[str, tuple[Callable[[], tuple[Simulation, Entry]], str]] = {
    "the answer of another agent's step": (_of_reserve("StockReserved", agent="cashier"), "WRONG_AGENT"),
    "a decision": (_begun(_decision), "WRONG_AGENT"),
    "a message that the step does not emit": (_of_reserve("ParcelSent"), "WRONG_TYPE"),
    "an outcome of a step that nothing triggered": (_begun(lambda s: _elsewhere(s, root="0" * 32)), "NOT_TRIGGERED"),
    "an outcome of a run to come": (_of_reserve("StockReserved", number=1), "NOT_TRIGGERED"),
    "an undo of nothing": (_begun(_undone), "NOT_TRIGGERED"),
    "a step that is not there": (_begun(lambda s: _elsewhere(s, step="dance")), "UNKNOWN_STEP"),
    "an output beyond those announced": (_of_reserve("StockReserved", index=3, total=2), "WRONG_OUTPUT"),
    "a second answer": (_second_answer, "DIFFERENT_ANSWER"),
    "a gated type as a fact": (_gate_bypassed, "GATE_BYPASSED"),
    "a proposal that no gate waits for": (_of_reserve("StockReserved", kind=Kind.PROPOSAL), "NOT_GATED"),
    "a first event in a flow that has begun": (
        _begun(lambda s: s.start(make("OrderPlaced", units=9), agent="storefront")),
        "SECOND_START",
    ),
    "another version": (_begun(_in_another_version), "WRONG_VERSION"),
    "a broken contract": (_broken, "BROKEN_CONTRACT"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_divergence_says_in_what_way_an_agent_left_its_template(way: str) -> None:
    case, kind = WAYS[way]
    simulation, entry = case()
    recorded = simulation.say(entry)
    (seen,) = simulation.flow.divergences
    assert DivergenceKind.Name(seen.kind) == f"DIVERGENCE_KIND_{kind}", seen.text
    assert (seen.sequence, seen.agent, seen.type) == (recorded.sequence, entry.address.agent, recorded.type)
    assert (seen.version, seen.time) == (simulation.template.version, recorded.time)


def test_what_an_agent_reports_itself_keeps_its_kind() -> None:
    simulation = begun()
    kind = DivergenceKind.DIVERGENCE_KIND_LATE_OUTCOME
    report = Divergence(kind=kind, event_id=ids.start_id(simulation.flow_id), refused_type="shop.v1.ParcelSent")
    entry = simulation.outcome(run_of(simulation, "reserve"), report)
    address = Address(*entry.address[:2], Kind.DIVERGENCE, *entry.address[3:])
    simulation.say(Entry(address, entry.event))
    assert [(seen.kind, seen.type) for seen in simulation.flow.divergences] == [(kind, "shop.v1.ParcelSent")]


@given(st.data())
def test_whatever_an_agent_says_a_divergence_has_a_kind(data: st.DataObject) -> None:
    flow = data.draw(st.sampled_from([begin(load("order")), begun().flow, reserved().flow]))
    for _ in range(4):
        flow = evolve(flow, data.draw(anything(flow)))
    # What an agent reports in a `Divergence` has the kind that it says, which its contract requires.
    assert all(seen.kind for seen in flow.divergences)
