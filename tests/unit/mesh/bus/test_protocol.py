"""What a reply says is what the broker wrote, whatever a publisher wrote before it; what we send is one line."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import BadSubjectError

from handrail.mesh.bus.direct_get import read_stored
from handrail.mesh.bus.protocol import (
    Message,
    asks,
    description,
    header_block,
    is_subject,
    parse_headers,
    publish_line,
    size,
    status,
)


def message(block: bytes) -> Message:
    return Message("a", block=block)


def test_a_status_is_what_the_first_line_says() -> None:
    reply = message(b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 3\r\n\r\n")
    assert (status(reply), description(reply)) == ("408", "Request Timeout")
    assert parse_headers(reply.block) == {"Nats-Pending-Messages": "3"}
    assert status(message(b"NATS/1.0 503\r\n\r\n")) == "503"
    assert status(message(b"NATS/1.0\r\nStatus: 503\r\n\r\n")) == ""
    assert status(message(b"")) == ""


AT = b"Nats-Stream: FLOW\r\nNats-Subject: flow.a\r\nNats-Sequence: 12\r\nNats-Time-Stamp: 2026-11-27T11:01:14.5Z\r\n"
OF_A_BATCH = b"Nats-Num-Pending: 3\r\nNats-Last-Sequence: 11\r\n"


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from((b"NATS/1.0\r\n", b"Status: 204\r\n", b"\r\n", b"Nats-Stream: ", AT, OF_A_BATCH)),
        )
    ),
    st.sampled_from((b"", OF_A_BATCH)),
)
def test_where_a_message_stands_is_what_the_broker_wrote_last(stored: list[bytes], more: bytes) -> None:
    block = b"".join(stored)
    found = read_stored(block + AT + more + b"\r\n", b"body")
    assert found is not None
    assert (found.subject, found.sequence, found.body, found.block) == ("flow.a", 12, b"body", block)
    assert found.time == datetime(2026, 11, 27, 11, 1, 14, 500000, tzinfo=UTC)


@pytest.mark.parametrize(
    "said",
    [
        b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: 27\r\nNats-UpTo-Sequence: 27\r\n\r\n",
        b"NATS/1.0 404 Message Not Found\r\n\r\n",
        b"NATS/1.0 413 Too Many Results\r\n\r\n",
        b"NATS/1.0 503\r\n\r\n",
        b"",
    ],
)
def test_what_the_broker_says_of_a_read_is_no_message(said: bytes) -> None:
    assert read_stored(said, b"") is None


@given(st.text(max_size=12))
def test_a_subject_is_what_no_blank_cuts(text: str) -> None:
    assert is_subject(text) == (bool(text) and re.search(r"[\s\x00]", text) is None)


@given(st.dictionaries(st.sampled_from(("A", "B", "C")), st.text(max_size=8), min_size=1))
def test_no_value_of_a_header_begins_another(headers: dict[str, str]) -> None:
    block = header_block(headers)
    assert block.count(b"\r") == block.count(b"\n") == len(headers) + 2
    assert size(b"body", headers) == len(block) + len(b"body")


@pytest.mark.parametrize("subject,reply", [("", ""), ("a b", ""), ("a", "b\r\nPUB c 0"), ("a\0", "")])
def test_a_subject_that_would_break_the_line_is_refused(subject: str, reply: str) -> None:
    with pytest.raises(BadSubjectError):
        publish_line(subject, reply, b"")


def test_a_message_that_asks_for_a_reply_is_told_from_others() -> None:
    block = header_block({"A": "b"})
    assert [asks(publish_line("a", reply, b" x ", head)) for reply in ("", "r") for head in (b"", block)] == [
        False,
        False,
        True,
        True,
    ]
