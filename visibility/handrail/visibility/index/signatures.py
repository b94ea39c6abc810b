"""Signatures: which failures are the same one. Pure.

Two texts are the same failure if they differ only in what differs each time: numbers, ids, addresses, times, quoted
values.
"""

from __future__ import annotations

import re
from hashlib import sha256

TEXT = 300
"""The length of a normalised text, in characters."""

_CHANGING = (
    (re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`"), "<text>"),
    (re.compile(r"\b(?:https?|nats|tls|grpc)://\S+"), "<address>"),
    (re.compile(r"\b[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}\b"), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ][\d:.]+(?:Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"\b(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{12,}\b"), "<id>"),
    (re.compile(r"0x[0-9a-fA-F]+"), "<id>"),
    (re.compile(r"\d+(?:[.,:]\d+)*"), "<number>"),
)


def normalised(text: str) -> str:
    """The text without what differs each time, on one line, cut at `TEXT` characters."""
    for pattern, instead in _CHANGING:
        text = pattern.sub(instead, text)
    return " ".join(text.split())[:TEXT]


def signature(*, flow_type: str, step: str, error_class: str, text: str) -> str:
    """The signature of a failure: 32 hex digits. `text` is the text as reported."""
    fields = (flow_type, step, error_class, normalised(text))
    return sha256("\0".join(fields).encode()).hexdigest()[:32]
