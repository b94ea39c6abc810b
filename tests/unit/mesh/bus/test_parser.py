"""What comes in from the broker is taken apart whole and in order, however it is cut and whatever bytes it has."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.mesh.bus.parser import Parser
from handrail.mesh.bus.protocol import BrokenProtocol, Message

TOKEN = st.binary(min_size=1, max_size=12).filter(lambda token: not set(token) & set(b" \t\r\n"))
SIZES = st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=5)
"""The bytes of one chunk after the other, over and over."""

LINES = (b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'Permissions Violation'\r\n", b'INFO {"a": 5} \r\n')


class Heard:
    """What a parser found, and whether it gave up."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.lines: list[tuple[bytes, bytes]] = []
        self.errors: list[Exception] = []
        self.broken = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Heard) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return repr(vars(self))


def parsed(data: bytes, sizes: Sequence[int] = ()) -> Heard:
    """Feeds a parser in chunks of these sizes; without sizes all at once."""
    heard = Heard()
    parser = Parser({b"7": heard.messages.append}, lambda *line: heard.lines.append(line), heard.errors.append)
    try:
        for chunk in chunks(data, sizes or [max(1, len(data))]):
            parser.feed(chunk)
    except BrokenProtocol as error:
        heard.broken = str(error)
    return heard


def chunks(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    cut: list[bytes] = []
    at = 0
    while at < len(data):
        size = sizes[len(cut) % len(sizes)]
        cut.append(data[at : at + size])
        at += size
    return cut


def encoded(subject: bytes, reply: bytes, block: bytes, body: bytes) -> bytes:
    head = b" ".join(filter(None, (subject, b"7", reply)))
    if block:
        return b"HMSG %b %d %d\r\n%b%b\r\n" % (head, len(block), len(block) + len(body), block, body)
    return b"MSG %b %d\r\n%b\r\n" % (head, len(body), body)


MESSAGE = st.tuples(TOKEN, st.one_of(st.just(b""), TOKEN), st.binary(max_size=40), st.binary(max_size=40))


@given(sent=st.lists(st.one_of(MESSAGE, st.sampled_from(LINES))), sizes=SIZES)
def test_every_message_comes_whole_and_in_order_however_it_is_cut(
    sent: list[tuple[bytes, bytes, bytes, bytes] | bytes], sizes: list[int]
) -> None:
    data = b"".join(each if isinstance(each, bytes) else encoded(*each) for each in sent)
    heard = parsed(data, sizes)
    assert heard.messages == [
        Message(each[0].decode(errors="replace"), each[1].decode(errors="replace"), each[3], each[2])
        for each in sent
        if not isinstance(each, bytes)
    ]
    assert [verb + b" " * bool(rest) + rest + b"\r\n" for verb, rest in heard.lines] == [
        each for each in sent if isinstance(each, bytes)
    ]
    assert heard == parsed(data)


PIECE = st.one_of(
    st.sampled_from((b"MSG a 7 ", b"HMSG a 7 ", b"MSG", b"7", b"8", b"0", b"1", b"2", b"12", b"-3", b"-300", b" ")),
    st.sampled_from((b"\r\n", b"\r\n", b"\n", b"\r", b"PING", b"99999999999", b"x" * 5)),
    st.binary(max_size=4),
)


@given(data=st.lists(PIECE, max_size=30).map(b"".join), sizes=SIZES)
def test_bytes_that_break_the_protocol_mean_the_same_however_they_are_cut(data: bytes, sizes: list[int]) -> None:
    whole = parsed(data)
    assert parsed(data, sizes) == whole
    assert len(whole.messages) <= data.count(b"MSG"), "a message was passed on twice"


@pytest.mark.parametrize(
    "data",
    [
        b"MSG a\r\n",
        b"MSG a 7\r\n",
        b"MSG a x 1\r\n1\r\n",
        b"MSG a 7 b c 1\r\n1\r\n",
        b"MSG a 7 -200\r\n",
        b"MSG a 7 -1\r\n",
        b"MSG a 7 +1\r\n1\r\n",
        b"MSG a 7 1_0\r\n0123456789\r\n",
        b"MSG a 7 99999999999\r\n",
        b"MSG a 7 1\r\n123\r\n",
        b"HMSG\r\n",
        b"HMSG a 7 1\r\n1\r\n",
        b"HMSG a 1 x 1\r\n",
        b"HMSG a 7 -5 1\r\n1\r\n",
        b"HMSG a 7 2 1\r\n1\r\n",
        b"HMSG a 7 b c 1 1\r\n1\r\n",
        b"x" * 70_000,
        b"INFO " + b"x" * 70_000 + b"\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_what_is_not_the_protocol_is_refused(data: bytes, size: int) -> None:
    heard = parsed(data, [max(size, len(data) // 100)])
    assert heard.broken
    assert heard.messages == []


def test_a_listener_that_fails_keeps_no_message_from_the_next() -> None:
    heard: list[bytes] = []
    errors: list[Exception] = []

    def listen(message: Message) -> None:
        heard.append(message.data)
        if message.data == b"1":
            raise ValueError("one")

    parser = Parser({b"7": listen}, lambda *_: None, errors.append)
    parser.feed(b"MSG a 7 1\r\n1\r\nMSG a 7 1\r\n2\r\n")
    assert heard == [b"1", b"2"]
    assert [str(error) for error in errors] == ["one"]


def test_a_message_of_a_subscription_that_ended_is_dropped() -> None:
    assert parsed(b"MSG a 8 1\r\n1\r\nMSG a 7 1\r\n2\r\n").messages == [Message("a", data=b"2")]


def test_a_large_message_in_small_pieces_costs_no_more_than_its_size() -> None:
    """What is not whole yet is looked at once, not with each piece: else this would copy 125 GB."""
    body = bytes(16 << 20)
    data = b"MSG a 7 %d\r\n%b\r\n" % (len(body), body)
    assert [len(message.data) for message in parsed(data, [1 << 10]).messages] == [len(body)]
