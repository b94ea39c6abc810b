"""The fold as a whole: what it makes of anything at all that the stream may hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
from google.protobuf.message import Message

from handrail.coordinator.decide import messages
from handrail.mesh.fold import begin, evolve, fold, pinned_version
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry, pack, type_of
from handrail.mesh.wire.subjects import Kind
from handrail.v1.decision_pb2 import CompensationStarted
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import Divergence, DivergenceKind, StepFailed, StepProgress
from tests.support.orders import begun, emit, make, reserved, run_of, sent, stands, void_of
from tests.support.simulation import Simulation


def with_data(entry: Entry, message: Message, value: bytes | None = None) -> Entry:
    """The same entry around another message, or around these bytes of its type."""
    entry.event.data.CopyFrom(pack(message))
    if value is not None:
        entry.event.data.value = value
    return Entry(entry.address._replace(message_type=type_of(entry.event.data)), entry.event)


def divergence(simulation: Simulation, message: Message) -> Entry:
    entry = simulation.progress(run_of(simulation, "reserve"), 1)
    return with_data(Entry(entry.address._replace(kind=Kind.DIVERGENCE), entry.event), message)


def test_p4_the_fold_is_the_sum_of_its_steps_and_changes_nothing_before() -> None:
    simulation = sent()
    flows = [begin(simulation.template)]
    for recorded in simulation.history:
        flows.append(evolve(flows[-1], recorded))
    for length, flow in enumerate(flows):
        assert flow == fold(simulation.template, simulation.history[:length])


def test_p4_messages_come_in_stream_order() -> None:
    simulation = reserved()
    with pytest.raises(ValueError, match="comes after"):
        evolve(simulation.flow, simulation.history[0])


def test_a_flow_is_pinned_to_the_version_of_its_first_event() -> None:
    simulation = reserved()
    first, second = simulation.history
    assert pinned_version([first, second]) == 1
    stray = replace(second, event=second.event.__class__.FromString(second.event.SerializeToString()))
    stray.event.template_version = 7
    assert pinned_version([stray, first]) == 1, "only a first event says so"
    assert pinned_version([stray]) == 7, "without one there is nothing better"


def test_a_message_that_claims_another_version_is_void() -> None:
    simulation = begun()
    entry = simulation.outcome(run_of(simulation, "reserve"), make("StockReserved", units=2))
    entry.event.template_version = 2
    void = void_of(simulation, entry)
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_WRONG_VERSION
    assert stands(simulation) == "RUNNING"


def test_before_its_first_event_everything_is_void() -> None:
    simulation, other = Simulation(begun().template), begun()
    simulation.coordinator = False
    decision = messages.decision(other.flow, CompensationStarted(), about="", now=other.now)
    assert void_of(simulation, decision) is not None
    assert void_of(simulation, other.outcome(run_of(other, "reserve"), make("StockReserved", units=2))) is not None
    assert void_of(simulation, other.failed(run_of(other, "reserve"), "no")) is not None
    assert void_of(simulation, messages.retry(other.flow, run_of(other, "reserve"), other.now)) is not None
    assert stands(simulation) == "UNSPECIFIED"
    assert void_of(simulation, other.start(make("OrderPlaced"), requester="kim")) is None


@pytest.mark.parametrize("kind", [Kind.FAILURE, Kind.PROGRESS, Kind.DIVERGENCE])
def test_a_message_of_another_type_than_its_kind_has_is_void(kind: Kind) -> None:
    simulation = begun()
    entry = simulation.progress(run_of(simulation, "reserve"), 1)
    other = with_data(Entry(entry.address._replace(kind=kind), entry.event), make("StockReserved", units=2))
    void = void_of(simulation, other)
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_WRONG_AGENT


def test_p5_what_agents_report_keeps_its_contract_too() -> None:
    simulation = begun()
    run = run_of(simulation, "reserve")
    too_long = with_data(simulation.failed(run, "no"), StepFailed(error_class="", text="x" * 5_000))
    void = void_of(simulation, too_long)
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_CONTRACT_VIOLATION
    uncounted = with_data(simulation.progress(run, 1), StepProgress(counter=0))
    assert void_of(simulation, uncounted) is not None
    assert run_of(simulation, "reserve") == run


@pytest.mark.parametrize("kind", [Kind.FAILURE, Kind.PROGRESS, Kind.DIVERGENCE, Kind.EVENT])
def test_p5_bytes_that_can_not_be_read_break_no_reader(kind: Kind) -> None:
    simulation = begun()
    run = run_of(simulation, "reserve")
    message: Message = {
        Kind.FAILURE: StepFailed(),
        Kind.PROGRESS: StepProgress(),
        Kind.DIVERGENCE: Divergence(),
        Kind.EVENT: make("StockReserved"),
    }[kind]
    entry = simulation.outcome(run, make("StockReserved")) if kind is Kind.EVENT else simulation.progress(run, 1)
    entry = Entry(entry.address._replace(kind=kind), entry.event)
    void = void_of(simulation, with_data(entry, message, b"\xff\xff"))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_MALFORMED


def test_p5_a_message_that_no_contract_knows_is_void() -> None:
    simulation = begun()
    entry = simulation.outcome(run_of(simulation, "reserve"), make("StockReserved"))
    entry.event.data.type_url = "type.googleapis.com/shop.v1.NeverHeardOf"
    void = void_of(simulation, Entry(entry.address._replace(message_type="shop.v1.NeverHeardOf"), entry.event))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_UNKNOWN_MESSAGE_TYPE


def test_p6_only_the_coordinator_decides() -> None:
    simulation = begun()
    entry = messages.decision(simulation.flow, CompensationStarted(), about="", now=simulation.now)
    entry.event.source = "warehouse"
    void = void_of(simulation, Entry(entry.address._replace(agent="warehouse"), entry.event))
    assert void is not None
    assert void.reason == ErrorReason.ERROR_REASON_WRONG_AGENT


def test_a_decision_that_nobody_knows_is_void() -> None:
    simulation = begun()
    entry = messages.decision(simulation.flow, make("StockReserved"), about="", now=simulation.now)
    void = void_of(simulation, entry)
    assert void is not None
    assert "not a known decision" in void.text


def test_what_an_agent_says_it_saw_is_kept() -> None:
    simulation = begun()
    seen = Divergence(
        kind=DivergenceKind.DIVERGENCE_KIND_DIFFERENT_ANSWER,
        event_id=ids.start_id(simulation.flow_id),
        stored_type="shop.v1.StockReserved",
        refused_type="shop.v1.ParcelSent",
    )
    assert void_of(simulation, divergence(simulation, seen)) is None
    (kept,) = simulation.flow.divergences
    assert (kept.agent, kept.type) == ("warehouse", "shop.v1.ParcelSent")


def test_what_is_late_is_no_divergence_and_what_is_out_of_line_is() -> None:
    simulation = begun()
    run = run_of(simulation, "reserve")
    emit(simulation, "reserve", "StockReserved", units=2)
    simulation.say(simulation.failed(run, "late"))
    simulation.say(simulation.progress(run, 1))
    assert simulation.flow.divergences == ()
    simulation.say(simulation.outcome(run, make("StockReserved"), index=3, total=9))
    assert len(simulation.flow.divergences) == 1


def test_what_a_coordinator_does_too_late_is_no_agents_divergence() -> None:
    simulation = reserved()
    late = messages.undo(simulation.flow, next(iter(simulation.flow.effects.values())), simulation.now)
    assert void_of(simulation, late) is not None
    assert simulation.flow.divergences == ()


def test_a_message_counts_towards_the_flow_whether_void_or_not() -> None:
    simulation = begun()
    simulation.say(simulation.outcome(run_of(simulation, "reserve"), make("StockReserved", units=-1)))
    assert simulation.flow.message_count == 2
    assert simulation.flow.last_sequence == 2
    assert simulation.flow.etag == "2"
