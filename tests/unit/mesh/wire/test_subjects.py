"""Subjects: what is built parses to what it was built from, and nothing else parses."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.mesh.errors import HandrailError
from handrail.mesh.wire import subjects
from handrail.mesh.wire.subjects import Address, Kind, parse, parse_due
from handrail.v1.error_reason_pb2 import ErrorReason

FLOW = "0123456789abcdef" * 2
EVENT = "fedcba9876543210" * 2

names = st.from_regex(r"[a-z][a-z0-9_-]{0,62}", fullmatch=True)
ids = st.from_regex(r"[0-9a-f]{32}", fullmatch=True)
messages = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}(\.[A-Za-z_][A-Za-z0-9_]{0,9}){0,4}", fullmatch=True)
addresses = st.builds(Address, names, ids, st.sampled_from(Kind), names, ids, messages)


@given(addresses)
def test_a_subject_parses_to_what_it_was_built_from(address: Address) -> None:
    assert parse(address.subject) == address
    assert address.subject.startswith(subjects.flow_filter(address.flow_type, address.flow_id).removesuffix(">"))


@given(st.text(max_size=200))
def test_whatever_comes_as_a_subject_is_understood_or_refused(text: str) -> None:
    with suppress(HandrailError):
        assert parse(text).subject == text


@pytest.mark.parametrize(
    "subject,why",
    [
        ("flow.order", "it is not flow"),
        (f"flows.order.{FLOW}.event.a.{EVENT}.shop.v1.X", "it is not flow"),
        (f"flow.order.{FLOW}.fact.a.{EVENT}.shop.v1.X", 'no kind "fact"'),
        (f"flow.Order.{FLOW}.event.a.{EVENT}.shop.v1.X", 'flow type "Order"'),
        (f"flow..{FLOW}.event.a.{EVENT}.shop.v1.X", 'flow type ""'),
        (f"flow.order.{FLOW.upper()}.event.a.{EVENT}.shop.v1.X", "flow id"),
        (f"flow.order.{'9' * 10_000}.event.a.{EVENT}.shop.v1.X", "flow id"),
        (f"flow.order.{FLOW}.event.two words.{EVENT}.shop.v1.X", 'agent "two words"'),
        (f"flow.order.{FLOW}.event.{'a' * 64}.{EVENT}.shop.v1.X", "agent"),
        (f"flow.order.{FLOW}.event.a.{EVENT}0.shop.v1.X", "event id"),
        (f"flow.order.{FLOW}.event.a.{EVENT}.shop..X", "not a message name"),
        (f"flow.order.{FLOW}.event.a.{EVENT}.", "not a message name"),
        (f"flow.order.{FLOW}.event.a.{EVENT}.shop.v1.X\n", "not a message name"),
        (f"flow.order.{FLOW}.event.*.{EVENT}.shop.v1.X", 'agent "*"'),
    ],
)
def test_a_wrong_subject_is_refused_with_the_token_that_is_wrong(subject: str, why: str) -> None:
    with pytest.raises(HandrailError) as refused:
        parse(subject)
    assert refused.value.reason == ErrorReason.ERROR_REASON_WRONG_ADDRESS
    assert why in refused.value.text
    assert len(refused.value.text) < 400, "a long subject does not flood the log"


def test_the_filter_for_one_outcome_takes_every_kind_and_type_of_it() -> None:
    assert subjects.outcome_filter("order", FLOW, "a", EVENT) == f"flow.order.{FLOW}.*.a.{EVENT}.>"


@given(names, ids, st.from_regex(r"[A-Za-z0-9_-]{1,256}", fullmatch=True))
def test_a_timer_arrives_under_the_name_it_was_armed_with(flow_type: str, flow_id: str, timer: str) -> None:
    assert parse_due(subjects.due_subject(flow_type, flow_id, timer)) == (flow_type, flow_id, timer)
    assert subjects.timer_subject(flow_type, flow_id, timer) == f"timer.{flow_type}.{flow_id}.{timer}"


@pytest.mark.parametrize("timer", ["", "a.b", "a b", "*", "a" * 257])
def test_a_timer_has_a_name_of_one_token(timer: str) -> None:
    with pytest.raises(HandrailError, match="one token"):
        subjects.timer_subject("order", FLOW, timer)


@pytest.mark.parametrize("subject", ["due.order", f"due.Order.{FLOW}.x", "due.order.x.y", f"timer.order.{FLOW}.x"])
def test_what_is_no_due_timer_is_refused(subject: str) -> None:
    with pytest.raises(HandrailError):
        parse_due(subject)


def test_a_quarantine_subject_is_always_a_subject() -> None:
    hostile = subjects.quarantine_subject("a.b", "*", ">", "", "with space")
    assert hostile == "quarantine.-.-.-.-.-"
    made = subjects.quarantine_subject("order", FLOW, "warehouse", "desk", EVENT)
    assert made == f"quarantine.order.{FLOW}.warehouse.desk.{EVENT}"
    assert subjects.parse_quarantine(made) == ("order", FLOW, "warehouse", "desk", EVENT)


def test_a_quarantine_subject_of_an_earlier_release_is_read() -> None:
    parsed = subjects.parse_quarantine(f"quarantine.order.{FLOW}.warehouse.{EVENT}")
    assert parsed == ("order", FLOW, "warehouse", "", EVENT)
    assert subjects.parse_quarantine("quarantine.order") == ("order", "", "", "", "")


def test_templates_and_keys_have_their_places() -> None:
    assert subjects.template_subject("order", 3) == "template.order.3"
    assert subjects.activation_subject("order", 7) == "template.order.active.7"
    assert subjects.key_subject("order", EVENT) == f"key.order.{EVENT}"
