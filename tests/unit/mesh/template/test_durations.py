"""Every duration of a template is bounded by the check; whatever a stored one says, its flows are read and ended."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from handrail.analysis.check.part_checks import MAX_DURATION
from handrail.analysis.check.typecheck import check
from handrail.coordinator.api.views import flow_view
from handrail.coordinator.decide import decide
from handrail.coordinator.decide.timers import timers
from handrail.mesh.template import Template
from handrail.mesh.template.compilation import LONGEST, bounded
from handrail.mesh.template.specs import RetrySpec
from handrail.v1.decision_pb2 import HaltMode
from handrail.v1.template_pb2 import FlowTemplate
from tests.support.orders import contracts, effect_of, emit, load, make, run_of, stands
from tests.support.simulation import Simulation

PROTOBUFS_LIMIT = 315_576_000_000
"""Seconds. https://protobuf.dev/reference/protobuf/google.protobuf/#duration"""

DURATION = Duration.DESCRIPTOR.full_name


def order(duration: Duration, *, multiplier: float = 100) -> FlowTemplate:
    """The flow type of the stories, with this in place of each duration that there can be."""
    proto = FlowTemplate()
    proto.CopyFrom(load("order").proto)
    for step in proto.steps:
        step.retry.max_attempts, step.retry.multiplier = 100, multiplier
        if step.HasField("undo"):
            step.undo.retry.max_attempts, step.undo.retry.multiplier = 100, multiplier
    for message, name in fields(proto):
        getattr(message, name).CopyFrom(duration)
    return proto


def fields(message: Message) -> Iterator[tuple[Message, str]]:
    """Each place for a duration in a message, set or not, and in the messages that it has."""
    definition: Descriptor = message.DESCRIPTOR  # type: ignore[assignment]
    for field in definition.fields:
        if field.message_type is None:
            continue
        if field.message_type.full_name == DURATION:
            yield message, field.name
        elif field.is_repeated:
            for part in getattr(message, field.name):
                yield from fields(part)
        elif message.HasField(field.name):
            yield from fields(getattr(message, field.name))


def test_each_duration_of_a_template_is_bounded() -> None:
    proto = order(Duration(seconds=5))
    places = list(fields(proto))
    kinds = {(message.DESCRIPTOR.name, name) for message, name in places}
    assert {
        ("Retry", "initial_backoff"),
        ("Retry", "max_backoff"),
        ("Undo", "timeout"),
        ("Gate", "expires_after"),
    } < kinds
    before = {found.path for found in check(proto, contracts()) if found.code == "HR001"}
    for message, name in places:
        duration = getattr(message, name)
        for seconds in (2**63 - 1, PROTOBUFS_LIMIT, int(MAX_DURATION.total_seconds()) + 1):
            duration.seconds = seconds
            told = {found.path for found in check(proto, contracts()) if found.code == "HR001"} - before
            assert len(told) == 1, f"{message.DESCRIPTOR.name}.{name}"
            assert told.pop().endswith(name)
        duration.seconds = 5


@pytest.mark.parametrize("seconds", [PROTOBUFS_LIMIT, 2**63 - 1, -PROTOBUFS_LIMIT, -(2**63)])
@pytest.mark.parametrize("multiplier", [100, 1e308, float("inf"), float("nan"), -1])
def test_a_flow_of_any_stored_template_is_read_undone_and_ended(seconds: int, multiplier: float) -> None:
    template = Template.compile(order(Duration(seconds=seconds), multiplier=multiplier), contracts())
    simulation = Simulation(template)
    simulation.say(simulation.start(make("OrderPlaced", buyer="kim", units=2, risk=0), requester="kim"))
    simulation.say(simulation.failed(run_of(simulation, "reserve"), "no"))
    looked_at(simulation)
    simulation.now += LONGEST
    simulation.settle()
    if seconds > 0:
        emit(simulation, "reserve", "StockReserved", units=2)
        emit(simulation, "discount", "DiscountGranted", percent=30, asked_by="kim")
        looked_at(simulation)
        simulation.say(simulation.halt(HaltMode.HALT_MODE_CANCEL, "ola", "no"))
        simulation.say(simulation.undo_failed(effect_of(simulation, "StockReserved"), "no"))
    looked_at(simulation)
    assert stands(simulation) == ("COMPENSATING" if seconds > 0 else "ESCALATED")


def looked_at(simulation: Simulation) -> None:
    """Everything that computes with the times of a flow."""
    timers(simulation.flow)
    decide(simulation.flow, simulation.now)
    flow_view(simulation.folded())


@given(
    initial=st.integers(min_value=0, max_value=PROTOBUFS_LIMIT),
    longest=st.integers(min_value=0, max_value=PROTOBUFS_LIMIT),
    multiplier=st.floats(min_value=0, max_value=100),
    failed=st.integers(min_value=0, max_value=10_000),
)
def test_no_backoff_is_longer_than_the_longest(initial: int, longest: int, multiplier: float, failed: int) -> None:
    retry = RetrySpec(
        initial_backoff=bounded(Duration(seconds=initial)),
        max_backoff=bounded(Duration(seconds=longest)),
        multiplier=multiplier,
    )
    assert timedelta() <= retry.backoff(failed) <= retry.max_backoff <= LONGEST


def test_durations_are_cut_to_microseconds_and_to_what_a_date_takes() -> None:
    assert bounded(Duration(seconds=1, nanos=1_999)) == timedelta(seconds=1, microseconds=1)
    assert bounded(Duration(seconds=-5)) == timedelta()
    assert bounded(Duration(seconds=PROTOBUFS_LIMIT)) == LONGEST
