"""P5: the body of a message and its subject say the same, or the message is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.coordinator.decide import messages
from handrail.mesh.errors import HandrailError
from handrail.mesh.wire import envelope
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.subjects import Kind
from handrail.v1.error_reason_pb2 import ErrorReason
from tests.support.orders import begun, effect_of, granted, make, proposal_of, reserved, run_of

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def decoded(entry: Entry, *, body: bytes | None = None) -> envelope.Recorded:
    return envelope.decode(entry.address.subject, entry.body if body is None else body, sequence=3, time=NOW)


def reserve() -> Entry:
    simulation = begun()
    return simulation.outcome(run_of(simulation, "reserve"), make("StockReserved", units=2))


def test_what_is_encoded_is_decoded() -> None:
    entry = reserve()
    recorded = decoded(entry)
    assert (recorded.address, recorded.event, recorded.sequence, recorded.time) == (entry.address, entry.event, 3, NOW)
    assert recorded.kind is Kind.EVENT
    assert recorded.agent == "warehouse"
    assert recorded.type == "shop.v1.StockReserved"
    assert recorded.event_id == entry.event.event_id


def test_every_kind_agrees_with_itself() -> None:
    simulation = granted(30)
    simulation.say(simulation.vote(proposal_of(simulation), "ann", ["sales_lead"]))
    simulation.say(simulation.vote(proposal_of(simulation), "bob", ["sales_lead"]))
    pay = run_of(simulation, "pay")
    simulation.say(simulation.progress(pay, 1))
    simulation.say(simulation.failed(pay, "no"))
    simulation.wait(simulation.next_timer() - simulation.now)  # type: ignore[operator]
    simulation.say(simulation.failed(run_of(simulation, "pay"), "no", retryable=False))
    simulation.say(simulation.undone(effect_of(simulation, "StockReserved"), make("StockReleased")))
    assert {recorded.kind for recorded in simulation.history} == set(Kind) - {Kind.DIVERGENCE}
    for recorded in simulation.history:
        assert decoded(Entry(recorded.address, recorded.event)).event == recorded.event


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\xff", b"no protobuf at all"])
def test_a_body_that_is_no_event_is_malformed(body: bytes) -> None:
    with pytest.raises(HandrailError) as refused:
        decoded(reserve(), body=body)
    assert refused.value.reason == ErrorReason.ERROR_REASON_MALFORMED


@given(st.binary(max_size=100))
def test_no_body_breaks_the_reader(body: bytes) -> None:
    with pytest.raises(HandrailError):
        decoded(reserve(), body=body)


def _set(field: str, value: object) -> Callable[[Entry], None]:
    return lambda entry: setattr(entry.event, field, value)


@pytest.mark.parametrize(
    "field,change",
    [
        ("flow_type", _set("flow_type", "other")),
        ("flow_id", _set("flow_id", "0" * 32)),
        ("event_id", _set("event_id", "0" * 32)),
        ("source", _set("source", "cashier")),
        ("data type", lambda entry: entry.event.data.CopyFrom(envelope.pack(make("ParcelSent")))),
    ],
)
def test_what_subject_and_body_both_say_must_agree(field: str, change: Callable[[Entry], None]) -> None:
    entry = reserve()
    change(entry)
    with pytest.raises(HandrailError) as refused:
        decoded(entry)
    assert refused.value.reason == ErrorReason.ERROR_REASON_WRONG_ADDRESS
    assert refused.value.metadata == {"field": field}


@pytest.mark.parametrize("field", ["step", "root"])
def test_p3_readers_recompute_the_id_of_an_outcome(field: str) -> None:
    entry = reserve()
    setattr(entry.event, field, "0" * 32)
    with pytest.raises(HandrailError) as refused:
        decoded(entry)
    assert refused.value.reason == ErrorReason.ERROR_REASON_WRONG_EVENT_ID


@pytest.mark.parametrize("field", ["run", "output_index"])
def test_p3_run_and_index_enter_the_id(field: str) -> None:
    entry = reserve()
    setattr(entry.event, field, 5)
    with pytest.raises(HandrailError, match="does not follow"):
        decoded(entry)


def test_p3_the_attempt_does_not_enter_the_id() -> None:
    entry = reserve()
    entry.event.attempt = 9
    assert decoded(entry).event.attempt == 9


def test_a_command_is_spoken_by_the_coordinator_to_the_agent() -> None:
    simulation = reserved()
    simulation.coordinator = False
    simulation.say(simulation.failed(run_of(simulation, "discount"), "no"))
    command = messages.retry(simulation.flow, run_of(simulation, "discount"), simulation.now)
    assert (command.address.agent, command.event.source) == ("sales", "coordinator")
    command.event.source = "sales"
    with pytest.raises(HandrailError, match="source"):
        decoded(command)


def test_a_packed_message_is_the_same_every_time() -> None:
    message = make("StockReserved", units=3)
    assert envelope.pack(message).value == envelope.pack(message).value
    assert envelope.type_of(envelope.pack(message)) == "shop.v1.StockReserved"


@given(st.timedeltas(timedelta(), timedelta(days=2_500_000)))
def test_a_time_survives_the_wire(age: timedelta) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + age
    assert envelope.from_timestamp(envelope.timestamp(moment)) == moment
