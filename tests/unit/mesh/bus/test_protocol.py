"""What comes in from the broker is taken apart whole and in order, whatever bytes somebody put in it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError

from handrail.mesh.bus.direct_get import read_stored
from handrail.mesh.bus.protocol import Message, Parser, description, parse_headers, status

TOKEN = st.binary(min_size=1, max_size=12).filter(lambda token: not set(token) & set(b" \t\r\n"))


class Heard:
    """Takes what the parser finds, in place of nats-py's client."""

    def __init__(self) -> None:
        self.messages: list[tuple[Any, ...]] = []
        self.lines: list[Any] = []

    async def _process_msg(self, *message: Any) -> None:
        self.messages.append(message)

    async def _process_ping(self) -> None:
        self.lines.append("ping")

    async def _process_pong(self) -> None:
        self.lines.append("pong")

    async def _process_err(self, text: str) -> None:
        self.lines.append(text)

    async def _process_info(self, info: object) -> None:
        self.lines.append(info)


async def parsed(data: bytes, size: int) -> Heard:
    heard = Heard()
    parser = Parser(heard)
    for start in range(0, len(data), size):
        await parser.parse(data[start : start + size])
    return heard


@given(
    messages=st.lists(st.tuples(TOKEN, st.one_of(st.just(b""), TOKEN), st.binary(max_size=40), st.binary(max_size=40))),
    size=st.integers(min_value=1, max_value=64),
)
async def test_every_message_comes_whole_and_in_order_however_it_is_cut(
    messages: list[tuple[bytes, bytes, bytes, bytes]], size: int
) -> None:
    data = b""
    for subject, reply, block, body in messages:
        head = b" ".join(filter(None, (subject, b"7", reply)))
        if block:
            data += b"HMSG %b %d %d\r\n" % (head, len(block), len(block) + len(body))
        else:
            data += b"MSG %b %d\r\n" % (head, len(body))
        data += block + body + b"\r\n"
    heard = await parsed(data, size)
    assert heard.messages == [(7, subject, reply, body, block) for subject, reply, block, body in messages]


async def test_the_other_lines_of_the_protocol_are_told_apart() -> None:
    data = b'PING\r\nPONG\r\n+OK\r\n-ERR \'Permissions Violation for Publish to "A"\'\r\nINFO {"max_payload": 5} \r\n'
    heard = await parsed(data, 1)
    permissions = "'permissions violation for publish to \"a\"'"
    assert heard.lines == ["ping", "pong", permissions, {"max_payload": 5}]


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1\r\n", b"MSG a\r\n", b"MSG a x 1\r\n", b"HMSG a 1 x 1\r\n"])
async def test_what_is_not_the_protocol_ends_the_connection(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        await parsed(line, 100)


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
