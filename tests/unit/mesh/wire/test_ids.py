"""Ids: derived, told apart, and the same for everybody. The vectors themselves are on the page about the wire."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.mesh.wire import ids

FLOW = "0123456789abcdef" * 2
texts = st.text(max_size=20)


@given(texts, texts, texts, texts)
def test_p3_fields_do_not_run_into_each_other(a: str, b: str, c: str, d: str) -> None:
    same = (a, b) == (c, d)
    assert (ids.flow_id_from_key(a, b) == ids.flow_id_from_key(c, d)) is same


def test_p3_neither_attempt_nor_type_enters_an_outcome() -> None:
    root = ids.start_id(FLOW)
    outcome = ids.outcome_id(FLOW, "pay", root, 0, 0)
    assert outcome == ids.outcome_id(FLOW, "pay", root, 0, 0)
    others = [
        ids.outcome_id(FLOW, "send", root, 0, 0),
        ids.outcome_id(FLOW, "pay", outcome, 0, 0),
        ids.outcome_id(FLOW, "pay", root, 1, 0),
        ids.outcome_id(FLOW, "pay", root, 0, 1),
        ids.outcome_id(FLOW[::-1], "pay", root, 0, 0),
    ]
    assert len({outcome, *others}) == 6


IDS: list[Callable[[], str]] = [
    lambda: ids.outcome_id(FLOW, "a", FLOW, 0, 0),
    lambda: ids.undone_id(FLOW, FLOW),
    lambda: ids.attempt_id("failure", FLOW, "a", FLOW, 0, 0),
    lambda: ids.attempt_id("retry", FLOW, "a", FLOW, 0, 0),
    lambda: ids.attempt_id("undo", FLOW, "a", FLOW, 0, 0),
    lambda: ids.attempt_id("undo-failure", FLOW, "a", FLOW, 0, 0),
    lambda: ids.progress_id(FLOW, "a", FLOW, 0, 0, 0),
    lambda: ids.divergence_id(FLOW, FLOW, ""),
    lambda: ids.decision_id(FLOW, "a", FLOW, 0),
    lambda: ids.escalation_id(FLOW, "a", FLOW),
    lambda: ids.join_root([FLOW, "a"]),
    lambda: ids.idempotency_key(FLOW, "a", FLOW, 0),
    lambda: ids.undo_key(FLOW, FLOW),
    lambda: ids.quarantine_id(FLOW, b"a"),
    lambda: ids.flow_id_from_key(FLOW, "a"),
    lambda: ids.key_hash(FLOW, "a"),
]


def test_ids_of_different_things_never_meet() -> None:
    made = [make() for make in IDS]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in made)


def test_p8_the_idempotency_key_is_of_the_run_and_not_of_the_attempt() -> None:
    assert ids.idempotency_key(FLOW, "pay", FLOW, 0) != ids.idempotency_key(FLOW, "pay", FLOW, 1)
    assert ids.idempotency_key(FLOW, "pay", FLOW, 0) != ids.undo_key(FLOW, FLOW)


def test_a_void_decision_does_not_block_the_next_one() -> None:
    assert ids.decision_id(FLOW, "handrail.v1.FlowClosed", "", 7) != ids.decision_id(
        FLOW, "handrail.v1.FlowClosed", "", 8
    )


def test_a_join_depends_on_the_order_of_its_inputs() -> None:
    assert ids.join_root(["a", "b"]) != ids.join_root(["b", "a"]) != ids.join_root(["ab"])


def _digest(**changes: object) -> str:
    shown: dict[str, object] = {
        "flow_id": FLOW,
        "event_id": FLOW,
        "gates": ["a", "b"],
        "message_type": "m",
        "data": b"d",
    }
    return ids.approval_digest(**(shown | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"flow_id": FLOW[::-1]},
        {"event_id": FLOW[::-1]},
        {"gates": ["a"]},
        {"message_type": "n"},
        {"data": b"e"},
    ],
)
def test_p6_a_vote_is_bound_to_everything_that_was_shown(changes: dict[str, object]) -> None:
    assert _digest(**changes) != _digest()
    assert len(_digest()) == 64


def test_the_order_in_which_gates_are_named_does_not_matter_to_a_digest() -> None:
    assert _digest(gates=["b", "a"]) == _digest()


@given(st.timedeltas(timedelta(), timedelta(days=2_500_000)), st.binary(min_size=10, max_size=16))
def test_a_drawn_flow_id_is_a_uuid_of_version_seven(age: timedelta, random: bytes) -> None:
    made = ids.new_flow_id(datetime(1970, 1, 1, tzinfo=UTC) + age, random)
    uuid = UUID(made)
    assert uuid.hex == made
    assert uuid.version == 7
    assert abs((uuid.int >> 80) - age // timedelta(milliseconds=1)) <= 1


def test_drawn_flow_ids_sort_by_their_time() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    first, second = (ids.new_flow_id(now + timedelta(seconds=s), bytes([255 - s] * 10)) for s in (0, 1))
    assert first < second
