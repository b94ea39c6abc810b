"""Messages that an agent can publish to do harm: with headers that imitate the broker's, on malformed subjects, or as
answers to deliveries of others.
"""

from __future__ import annotations

FORMS = {
    **{
        f"status {code}": b"NATS/1.0\r\nStatus: %d\r\nDescription: EOB\r\nNats-UpTo-Sequence: 9999\r\n\r\n" % code
        for code in (100, 204, 404, 408, 413, 500, 503)
    },
    **{
        f"inline status {code}": b"NATS/1.0 %d EOB\r\nNats-Num-Pending: 0\r\n\r\n" % code
        for code in (100, 204, 404, 503)
    },
    "inline status and headers": b"NATS/1.0 204\r\nNats-Sequence: 7\r\nNats-UpTo-Sequence: 7\r\n\r\n",
    "inline status that is not ASCII": b"NATS/1.0 \xff\xfe\xfd\r\nA: 1\r\n\r\n",
    "another case": b"NATS/1.0\r\nstatus: 204\r\nSTATUS: 404\r\nnats-sequence: 7\r\nNATS-SUBJECT: x\r\n\r\n",
    "blanks around names": b"NATS/1.0\r\n Status : 204\r\nNats-Sequence : 7\r\n\tNats-Subject\t:\tx\r\n\r\n",
    "the server's names twice": b"NATS/1.0\r\nNats-Sequence: 7\r\nNats-Sequence: 8\r\nNats-Subject: flow.x\r\n"
    b"Nats-Time-Stamp: nonsense\r\nNats-Num-Pending: many\r\nNats-UpTo-Sequence: -1\r\n\r\n",
    "the server's whole block": b"NATS/1.0\r\nNats-Stream: FLOW\r\nNats-Subject: flow.x\r\nNats-Sequence: 7\r\n"
    b"Nats-Time-Stamp: 2020-01-01T00:00:00Z\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: 0\r\n\r\n",
    "two blocks": b"NATS/1.0\r\nA: 1\r\n\r\nNats-Sequence: 7\r\nNats-Subject: flow.x\r\n\r\n",
    "the end of a request": b"NATS/1.0\r\nNats-Pending-Messages: 100\r\nNats-Pending-Bytes: 0\r\nStatus: 408\r\n\r\n",
    "no end": b"NATS/1.0\r\nNats-Stream: no end",
    "one byte": b"N",
    "the version alone": b"NATS/1.0",
    "no block": b"garbage without a colon",
    "only an end": b"\r\n",
    "empty": b"NATS/1.0\r\n\r\n",
    "no text": b"NATS/1.0\r\n\xff\xfe: \x00\x80\r\n\xc3\x28\r\n\r\n",
}
"""Header blocks that an agent may get the broker to store."""


def forged_expectations(subjects: str, sequence: int, others: str) -> dict[str, bytes]:
    """Header blocks that seem to say that the message was stored right after `sequence` on these subjects, and from
    which the broker reads something else, such as an expectation about `others`, where nothing is stored.
    """
    number = b"%d" % sequence
    claim, true = _expectation(number, subjects), _expectation(b"0", others)
    return {
        "no headers": b"",
        "another pair before": b"NATS/1.0\r\n" + true + claim + b"\r\n",
        "another pair after": b"NATS/1.0\r\n" + claim + true + b"\r\n",
        "something before": b"NATS/1.0\r\nA: 1\r\n" + claim + b"\r\n",
        "in a second block": b"NATS/1.0\r\n\r\n" + claim + b"\r\n",
        "in the trace": b"NATS/1.0\r\ntraceparent: 00 \r\n" + claim + b"\r\n",
        "behind a line feed": b"NATS/1.0\r\ntraceparent: 00\n" + claim + b"\r\n",
        "a status": b"NATS/1.0 100 x\r\n" + claim + b"\r\n",
        "no end": b"NATS/1.0\r\n" + claim,
        "without subjects": b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: " + number + b"\r\n\r\n",
        "no number": b"NATS/1.0\r\n" + _expectation(number + b"l", subjects) + b"\r\n",
        "a sign": b"NATS/1.0\r\n" + _expectation(b"+" + number, subjects) + b"\r\n",
        "a number that is too large": b"NATS/1.0\r\n" + _expectation(b"9" * 19, subjects) + b"\r\n",
        "the beginning": b"NATS/1.0\r\n" + _expectation(b"0", subjects) + b"\r\n",
    }


def _expectation(sequence: bytes, subjects: str) -> bytes:
    name = b"Nats-Expected-Last-Subject-Sequence"
    return b"%b: %b\r\n%b-Subject: %b\r\n" % (name, sequence, name, subjects.encode())


TOKENS = {
    "not UTF-8": b"\xff\xfe",
    "a surrogate": b"\xed\xa0\x80",
    "a vertical tab": b"a\x0bb",
    "a form feed": b"a\x0cb",
    "a null": b"\x00",
    "a line separator": "\u2028".encode(),
    "an escape": b"\x1b]0;x\x07",
}
"""Tokens that an agent may use instead of a flow id or an event id."""

ACKS = (b"+NXT", b'+NXT {"batch": 10}', b"+ACK", b"", b"-NAK", b'-NAK {"delay": 1}', b"+TERM", b"+TERM x", b"+WPI")
"""What a worker can answer to a delivery."""

_LONGEST = 14
"""How many tokens the longest tried subject has."""


def acks_like(reply: str, *, own: tuple[str, str]) -> set[str]:
    """Subjects that may pass for the reply subject of somebody else's delivery.

    These are `reply` in both of the broker's forms, longer subjects, and subjects that begin like `reply`, at least up
    to its stream, and end like one for the attacker's `own` stream and durable.
    """
    long = reply.split(".")
    short = ["$JS", "ACK", *long[-7:]] if len(long) != 12 else ["$JS", "ACK", *long[-8:-1]]
    found: set[str] = set()
    for real, stream in ((short, 2), (["$JS", "ACK", "_", "A", *short[2:]], 4), (long, len(long) - len(short) + 2)):
        found |= {".".join([*real, *["1"] * more]) for more in range(_LONGEST - len(real))}
        for kept in range(stream + 1, len(real) + 1):
            for mine in (own, ("A", *own), ("_", "A", *own)):
                begin = [*real[:kept], *mine]
                found |= {".".join([*begin, *"3456789"[:more]]) for more in range(max(0, _LONGEST - len(begin)))}
    return found
