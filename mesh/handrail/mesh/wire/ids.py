"""Ids are derived, not random: SHA-256 over length-prefixed UTF-8 fields, the first 16 bytes as 32 hex digits.

The first field names the kind of id, so that ids of different kinds never collide. `docs/wire.md` has test vectors.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from hashlib import sha256

LONGEST_KEY = 1024
"""The most characters of a business key that is shown, and that the API takes."""

_LENGTHS = tuple(length.to_bytes(4, "big") for length in range(256))
_PREFIXES = tuple(length.decode() for length in _LENGTHS[:128])
"""Length prefixes of short ASCII fields, as text that encodes to the same bytes."""


def _digest(*fields: str | bytes) -> bytes:
    parts: list[bytes] = []
    for field in fields:
        data = field.encode() if isinstance(field, str) else field
        length = len(data)
        parts += (_LENGTHS[length] if length < 256 else length.to_bytes(4, "big"), data)
    return sha256(b"".join(parts)).digest()


def _identifier(*fields: str) -> str:
    # Hot path: runs for every message read or written. Short ASCII fields, the usual case, are encoded in one go.
    try:
        text = "".join([_PREFIXES[len(field)] + field for field in fields])
    except IndexError:
        text = ""
    digest = sha256(text.encode()).digest() if text.isascii() and text else _digest(*fields)
    return digest[:16].hex()


def flow_id_from_key(flow_type: str, key: str) -> str:
    """The flow id of a business key: the same key gives the same flow."""
    return _identifier("flow", flow_type, key)


def flow_id_from_request(flow_type: str, caller: str, request_id: str) -> str:
    """The id of a flow that a call starts without a key: the same call gives the same flow."""
    return _identifier("flow-of-request", flow_type, caller, request_id)


def key_hash(flow_type: str, key: str) -> str:
    """The token under which the use of a business key is recorded."""
    return _identifier("key", flow_type, key)


def new_flow_id(now: datetime, random: bytes) -> str:
    """A UUIDv7 (RFC 9562) as 32 hex digits, made from a time and ten random bytes."""
    milliseconds = int(now.timestamp() * 1000)
    value = (milliseconds << 80) | int.from_bytes(random[:10], "big")
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return f"{value:032x}"


def outcome_id(flow_id: str, step: str, root: str, run: int, index: int) -> str:
    """The id of an outcome. It covers neither attempt nor message type, so a retry can't give a second answer."""
    return _identifier("outcome", flow_id, step, root, str(run), str(index))


def start_id(flow_id: str) -> str:
    """The id of a flow's first event."""
    return _start_id(flow_id)


@lru_cache(maxsize=4096)  # whoever reads a flow asks for it several times
def _start_id(flow_id: str) -> str:
    return outcome_id(flow_id, "", "", 0, 0)


def undone_id(flow_id: str, event_id: str) -> str:
    """The id of the outcome of undoing an event."""
    return _identifier("undone", flow_id, event_id)


def attempt_id(kind: str, flow_id: str, step: str, root: str, run: int, attempt: int) -> str:
    """The id of a message that occurs once per attempt: `failure`, `retry`, `undo` or `undo-failure`.

    For `undo` and `undo-failure`, `root` is the event to undo.
    """
    return _identifier(kind, flow_id, step, root, str(run), str(attempt))


def progress_id(flow_id: str, step: str, root: str, run: int, attempt: int, counter: int) -> str:
    """The id of the n-th durable heartbeat of an attempt."""
    return _identifier("progress", flow_id, step, root, str(run), str(attempt), str(counter))


def divergence_id(flow_id: str, event_id: str, digest: str) -> str:
    """The id of a divergence: each refused answer is reported once."""
    return _identifier("divergence", flow_id, event_id, digest)


def decision_id(flow_id: str, message_type: str, subject: str, based_on: int) -> str:
    """The id of a decision about `subject`, based on the flow at sequence `based_on`.

    The id covers the sequence, so that a void decision never blocks the next one.
    """
    return _identifier("decision", flow_id, message_type, subject, str(based_on))


def requested_id(flow_id: str, caller: str, request_id: str, voids: int) -> str:
    """The id of the message that a call with a request id records; `voids` counts its earlier void messages.

    A call is stored once, no matter which replica serves it. A void message does not block the next try.
    """
    return _identifier("requested", flow_id, caller, request_id, str(voids))


def delegation_id(caller: str, request_id: str) -> str:
    """The id of the delegation that a call with a request id records."""
    return _identifier("delegation", caller, request_id)


def escalation_id(flow_id: str, cause: str, subject: str) -> str:
    """The id of an escalation: the same matter always has the same id."""
    return _identifier("escalation", flow_id, cause, subject)


def join_root(event_ids: Iterable[str]) -> str:
    """The root of a join: the hash of its inputs' ids in stream order."""
    return _identifier("join", *event_ids)


def idempotency_key(flow_id: str, step: str, root: str, run: int) -> str:
    """The idempotency key of a step run: the same for all its redeliveries and retries."""
    return _identifier("effect", flow_id, step, root, str(run))


def undo_key(flow_id: str, event_id: str) -> str:
    """The idempotency key of an undo."""
    return _identifier("undo-effect", flow_id, event_id)


def approval_digest(*, flow_id: str, event_id: str, gates: Iterable[str], message_type: str, data: bytes) -> str:
    """The digest that a vote is bound to, as 64 hex digits. It covers everything that was shown to the voter."""
    return _digest("approval", flow_id, event_id, ",".join(sorted(gates)), message_type, data).hex()


def act_digest(*, about: str, message_type: str, data: bytes) -> str:
    """The digest that the confirmation of an act is bound to, as 64 hex digits; `about` is a flow id or a template."""
    return _digest("act", about, message_type, data).hex()


def template_act_id(name: str, number: int) -> str:
    """The id of the n-th act on a template that needs two persons."""
    return _identifier("template-act", name, str(number))


def quarantine_id(subject: str, body: bytes) -> str:
    """A derived id for a message without a readable or free event id."""
    return _digest("quarantine", subject, body)[:16].hex()


def content_digest(data: bytes) -> str:
    """SHA-256 of the bytes, 64 hex digits."""
    return sha256(data).hexdigest()
