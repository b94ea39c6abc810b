"""Expectations: the broker stores a message only if the last one on some subjects has a given sequence. Pure.

The headers that ask for it stay with the message. So a reader knows what was the last one when the message was stored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

EXPECTED_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"

# Exactly what `expecting` writes: of anything else, the broker might have read another number or other subjects.
_STORED = re.compile(
    rb"NATS/1\.0\r\n(?:traceparent: [0-9a-f-]+\r\n)?"
    rb"Nats-Expected-Last-Subject-Sequence: ([1-9][0-9]{0,17})\r\n"
    rb"Nats-Expected-Last-Subject-Sequence-Subject: ([^\r\n ]+)\r\n\r\n"
)


def expecting(headers: Mapping[str, str] | None, sequence: int, subject_filter: str | None) -> dict[str, str]:
    """Adds the headers by which the broker stores a message only if `sequence` is the last on `subject_filter`.

    Without a filter, it is the last on the message's own subject.
    """
    expected = {**(headers or {}), EXPECTED_SEQUENCE: str(sequence)}
    if subject_filter is not None:
        expected[EXPECTED_SUBJECT] = subject_filter
    return expected


def last_before(block: bytes, subject_filter: str) -> int:
    """The sequence of the last message on `subject_filter` before this one, by the headers that it was stored with.

    0 if they don't prove it. A publisher can't forge this: the broker would have refused the message. On a replicated
    stream it is no proof, because the broker compares before it replicates.
    """
    found = _STORED.fullmatch(block)
    return int(found[1]) if found is not None and found[2] == subject_filter.encode() else 0
