"""The rows of a flow say what the fold says, in whatever parts its messages come."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Table

from handrail.mesh.fold import advance, begin, is_final, status
from handrail.v1.decision_pb2 import FlowStatus
from handrail.visibility.index import schema
from handrail.visibility.index.rows import TIMED_OUT, FlowRows, Row, rows_of
from tests.support.flows import enrichment, received, template
from tests.support.random_templates import Spec, compiled, revisions, specs
from tests.support.simulation import Simulation
from tests.support.wandering import Wanderer


def columns(table: Table) -> set[str]:
    return {column.name for column in table.c}


def flow_row(rows: FlowRows) -> Row:
    assert rows.flow is not None
    return rows.flow


def whole(simulation: Simulation) -> FlowRows:
    return rows_of(simulation.flow, simulation.history)


@settings(max_examples=60)
@given(specs(), st.data())
def test_rows_are_the_same_in_whatever_parts_the_messages_come(spec: Spec, data: st.DataObject) -> None:
    wanderer = Wanderer(compiled(spec), compiled(data.draw(revisions(spec))))
    wanderer.begin(1)
    for _ in range(data.draw(st.integers(1, 15))):
        wanderer.next_act(data).do()
    history, versions = wanderer.simulation.history, wanderer.simulation.versions
    cuts = data.draw(st.sets(st.integers(1, len(history))))
    flow, failures, parts = begin(compiled(spec)), [], None
    for start, end in pairwise(sorted({0, *cuts, len(history)})):
        flow = advance(flow, history[start:end], versions)
        parts = rows_of(flow, history[start:end])
        failures += parts.failures
    at_once = whole(wanderer.simulation)
    assert parts is not None
    assert failures == at_once.failures
    assert (parts.flow, parts.owed, parts.approvals) == (at_once.flow, at_once.owed, at_once.approvals)
    assert (parts.escalations, parts.divergences) == (at_once.escalations, at_once.divergences)
    assert parts.attributes == at_once.attributes


@settings(max_examples=60)
@given(specs(), st.data())
def test_rows_fit_the_tables_and_say_what_the_fold_says(spec: Spec, data: st.DataObject) -> None:
    wanderer = Wanderer(compiled(spec))
    wanderer.begin(1)
    for _ in range(data.draw(st.integers(1, 15))):
        wanderer.next_act(data).do()
    flow, rows = wanderer.simulation.flow, whole(wanderer.simulation)
    assert flow_row(rows).keys() == columns(schema.flow)
    for table, some in (
        (schema.owed, rows.owed),
        (schema.approval, rows.approvals),
        (schema.escalation, rows.escalations),
        (schema.divergence, rows.divergences),
        (schema.attribute, rows.attributes),
        (schema.failure, rows.failures),
    ):
        assert all(row.keys() == columns(table) for row in some)
    assert flow_row(rows)["status"] == FlowStatus.Name(status(flow)).removeprefix("FLOW_STATUS_")
    assert (flow_row(rows)["ended"] is None) == (not is_final(flow))
    assert (flow_row(rows)["stuck_since"] is None) == (not flow.escalations)
    assert flow_row(rows)["last_sequence"] == flow.last_sequence
    assert not (is_final(flow) and rows.owed)


def begun(*, attempts: int = 3) -> Simulation:
    simulation = Simulation(template(attempts=attempts))
    simulation.say(simulation.start(received(), agent="detection"))
    return simulation


def test_an_open_flow_owes_what_its_agents_owe() -> None:
    simulation = begun()
    (owed,) = whole(simulation).owed
    assert (owed["step"], owed["agent"], owed["runs"], owed["attempt"]) == ("enrich", "enrichment", 1, 1)
    assert owed["due"] == simulation.now + timedelta(seconds=30)


def test_a_failed_attempt_is_a_failure_with_a_signature_and_the_flow_is_retrying() -> None:
    one, two = begun(), begun()
    for simulation, order in ((one, "4711"), (two, "4712")):
        run = next(iter(simulation.flow.runs.values()))
        simulation.say(simulation.failed(run, f"order {order} is not there yet"))
    failed, other = whole(one), whole(two)
    assert flow_row(failed)["retrying"] is True
    (failure,), (its_twin,) = failed.failures, other.failures
    assert (failure["step"], failure["agent"], failure["text"]) == (
        "enrich",
        "enrichment",
        "order <number> is not there yet",
    )
    assert failure["signature"] == its_twin["signature"]


def test_a_void_failure_is_none() -> None:
    simulation = begun(attempts=1)
    run = next(iter(simulation.flow.runs.values()))
    simulation.say(simulation.outcome(run, enrichment()))
    simulation.say(simulation.failed(run, "too late"))
    assert simulation.flow.void
    assert whole(simulation).failures == []


def test_a_silent_attempt_is_a_failure_of_its_own_class() -> None:
    simulation = begun()
    simulation.wait(timedelta(seconds=31))
    (failure,) = whole(simulation).failures
    assert (failure["step"], failure["agent"], failure["error_class"]) == ("enrich", "enrichment", TIMED_OUT)


def test_a_flow_that_waits_for_a_person_is_stuck_since_the_matter_was_opened() -> None:
    simulation = begun(attempts=1)
    run = next(iter(simulation.flow.runs.values()))
    simulation.say(simulation.failed(run, "no", retryable=False))
    rows = whole(simulation)
    (matter,) = rows.escalations
    assert flow_row(rows)["status"] == "ESCALATED"
    assert flow_row(rows)["stuck_since"] == matter["opened"]
    assert matter["step"] == "enrich"
    assert "failed for good" in str(flow_row(rows)["reason"])


def test_a_flow_that_ended_owes_nothing() -> None:
    simulation = begun()
    run = next(iter(simulation.flow.runs.values()))
    simulation.say(simulation.outcome(run, enrichment()))
    assert [owed["step"] for owed in whole(simulation).owed] == ["notify"]
