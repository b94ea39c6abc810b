"""Which differences of a configuration break a promise, and which are the operator's business."""

from __future__ import annotations

from typing import Any

import pytest

from handrail.mesh.streams import (
    ABSENCE,
    AUDIT,
    DELEGATION,
    FLOW,
    KEY,
    QUARANTINE,
    TEMPLATE,
    TIMER,
    WORKER,
    stream_configs,
)
from handrail.mesh.streams.promised import Difference, broken, changes, differences

STREAMS = sorted(stream_configs())
SECOND = 1_000_000_000


def found(stream: str, **changed: Any) -> list[str]:
    """The fields that break a promise once a stream of ours was changed so."""
    wanted = stream_configs()[stream]
    return [each.field for each in broken(stream, wanted, {**wanted, **changed})]


def test_what_the_server_leaves_out_is_off() -> None:
    assert differences({"sealed": False, "mirror": None, "max_age": 0}, {}) == ()
    assert differences({"sealed": False}, {"sealed": True}) == (Difference("sealed", False, True),)
    assert differences({"allow_direct": True}, {}) == (Difference("allow_direct", True, None),)


def test_the_order_of_subjects_does_not_matter() -> None:
    assert differences({"subjects": ["b", "a"]}, {"subjects": ["a", "b"]}) == ()


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize(
    "field,value",
    [
        ("subjects", [">"]),
        ("sources", [{"name": "OTHER"}]),
        ("mirror", {"name": "OTHER"}),
        ("republish", {"src": ">", "dest": "copy.>"}),
        ("subject_transform", {"src": ">", "dest": "x.>"}),
        ("sealed", True),
        ("no_ack", True),
        ("persist_mode", "async"),
        ("retention", "interest"),
        ("max_msgs_per_subject", 7),
        ("allow_msg_counter", True),
        ("allow_atomic", True),
        ("allow_batched", True),
    ],
)
def test_no_stream_may_have_it_p2(stream: str, field: str, value: object) -> None:
    assert found(stream, **{field: value}) == [field]


@pytest.mark.parametrize("stream", [FLOW, TEMPLATE, KEY, TIMER, DELEGATION, ABSENCE])
def test_nothing_that_flows_depend_on_may_expire_p2(stream: str) -> None:
    assert found(stream, max_age=SECOND) == ["max_age"]


def test_a_key_may_be_forgotten_after_a_week_at_the_earliest() -> None:
    assert found(KEY, max_age=7 * 86_400 * SECOND) == []
    assert found(KEY, max_age=7 * 86_400 * SECOND - 1) == ["max_age"]


def test_flow_may_be_purged_or_not_as_it_was_created() -> None:
    assert found(FLOW, deny_purge=True) == []
    assert found(TEMPLATE, deny_purge=False) == ["deny_purge"]


@pytest.mark.parametrize("stream", [QUARANTINE, AUDIT, WORKER])
def test_what_no_flow_depends_on_may_expire_when_the_operator_says(stream: str) -> None:
    assert found(stream, max_age=SECOND) == []
    assert found(stream, max_bytes=1, max_msgs=1) == []


@pytest.mark.parametrize("stream", [FLOW, TEMPLATE, KEY, DELEGATION])
def test_what_refuses_at_its_limit_may_have_any(stream: str) -> None:
    assert found(stream, max_bytes=1 << 20, max_msgs=10) == []


@pytest.mark.parametrize("stream", [TIMER, ABSENCE])
def test_what_would_drop_its_oldest_may_have_no_other_limit_p7(stream: str) -> None:
    assert sorted(found(stream, max_bytes=1 << 20, max_msgs=10)) == ["max_bytes", "max_msgs"]


@pytest.mark.parametrize("stream", STREAMS)
def test_where_and_how_a_stream_is_kept_is_the_operators(stream: str) -> None:
    changed = {"num_replicas": 3, "placement": {"cluster": "east"}, "compression": "s2", "description": "ours"}
    assert found(stream, **changed, max_msg_size=1 << 20, metadata={"team": "payments"}) == []


def test_a_difference_says_what_it_does() -> None:
    [difference] = broken(FLOW, stream_configs()[FLOW], {**stream_configs()[FLOW], "max_age": SECOND})
    assert str(difference) == (
        "max_age is 1 s, not 0 (messages would expire: open flows would be lost, and late duplicates accepted again)"
    )


def test_a_change_is_told_with_both_values() -> None:
    assert changes({"max_age": 0, "max_bytes": -1}, {"max_age": 3600 * SECOND, "max_bytes": -1}) == [
        "max_age was 0, is 3600 s"
    ]
    assert changes({}, {"sources": [{"name": "OTHER"}]}) == ["sources was None, is [{'name': 'OTHER'}]"]


def test_what_the_server_writes_itself_is_no_change() -> None:
    before = {"metadata": {"handrail": "1", "_nats.ver": "2.15.1"}}
    assert changes(before, {"metadata": {"handrail": "1", "_nats.ver": "2.16.0"}}) == []
    assert changes(before, {"metadata": {"_nats.ver": "2.15.1"}}) == ["metadata was {'handrail': '1'}, is None"]


def test_no_stream_is_published_again_p2() -> None:
    """nats-server 2.15.1 crashes when it publishes a message again whose header block is a single byte."""
    assert [name for name, config in stream_configs().items() if config["republish"] is not None] == []
