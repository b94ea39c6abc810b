from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.mesh.bus.delivery import Delivery, place
from handrail.mesh.bus.direct_get import parse_time
from handrail.mesh.bus.protocol import Message


class Replies:
    """Takes what a delivery answers, in place of a running pull."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.settlements = 0

    def reply(self, reply: str, body: bytes) -> None:
        self.sent.append((reply, body))

    def settled(self) -> None:
        self.settlements += 1


def delivery(reply: str, replies: Replies | None = None) -> Delivery:
    message = Message(subject="flow.refund.F", reply=reply, data=b"body")
    handed_out = place(reply)
    assert handed_out is not None
    return Delivery(replies or Replies(), message, handed_out)


NINE = "$JS.ACK.FLOW.agent-a.3.1201.77.1763812345678901234.12"


@pytest.mark.parametrize(
    "reply",
    [
        NINE,
        "$JS.ACK.hub.ABC123.FLOW.agent-a.3.1201.77.1763812345678901234.12",
        "$JS.ACK._.ABC123.FLOW.agent-a.3.1201.77.1763812345678901234.12.x8Fq",
    ],
)
def test_both_forms_of_the_ack_subject_are_read(reply: str) -> None:
    one = delivery(reply)
    assert (one.subject, one.body) == ("flow.refund.F", b"body")
    assert (one.delivered, one.sequence, one.pending) == (3, 1201, 12)
    assert one.time == datetime(2025, 11, 22, 11, 52, 25, 678901, tzinfo=UTC)


@given(st.integers(min_value=0, max_value=4_000_000_000_000_000_000))
def test_a_time_is_the_same_whichever_way_it_was_read(nanoseconds: int) -> None:
    delivered = delivery(f"$JS.ACK.S.d.1.1.1.{nanoseconds}.0").time
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    stamp = (datetime(1970, 1, 1) + timedelta(seconds=seconds)).isoformat()  # noqa: DTZ001  # the server's UTC, by hand
    text = f"{stamp}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"
    assert parse_time(text) == delivered


def test_answers_are_those_of_the_protocol() -> None:
    replies = Replies()
    for settle in (
        Delivery.ack,
        Delivery.nak,
        lambda one: one.nak(timedelta(seconds=1.5)),
        lambda one: one.term("unreadable"),
    ):
        settle(delivery(NINE, replies))
    assert replies.sent == [
        (NINE, b"+ACK"),
        (NINE, b"-NAK"),
        (NINE, b'-NAK {"delay": 1500000000}'),
        (NINE, b"+TERM unreadable"),
    ]
    assert replies.settlements == 4


def test_a_delivery_is_settled_once() -> None:
    replies = Replies()
    one = delivery(NINE, replies)
    one.in_progress()
    one.ack()
    one.nak()
    one.in_progress()
    one.term("no")
    assert replies.sent == [(NINE, b"+WPI"), (NINE, b"+ACK")]
    assert replies.settlements == 1
