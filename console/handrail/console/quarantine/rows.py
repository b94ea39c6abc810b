"""Quarantined messages as rows, and bytes as lines of hex. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.quarantine_service_pb2 import QuarantinedMessage

_BYTES_A_LINE = 16
_MOST_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Row:
    """A message in the list. `id` names it for the command; `flow_id` is empty if its subject names no flow."""

    id: str
    time: datetime
    reporter: str
    reason: str
    detail: str
    flow_id: str
    flow_type: str


@dataclass(frozen=True, slots=True)
class Detail:
    """One message with what is known of it, and its first bytes; `is_cut` if there are more."""

    row: Row
    facts: tuple[tuple[str, str], ...]
    lines: tuple[str, ...]
    is_cut: bool


def row(found: QuarantinedMessage) -> Row:
    """The message as a row."""
    reason = found.message.reason
    return Row(
        identifier(found),
        found.time.ToDatetime(UTC),
        found.message.reporter,
        ErrorReason.Name(reason).removeprefix("ERROR_REASON_") if reason in ErrorReason.values() else "UNKNOWN",
        found.message.detail,
        "" if found.flow_id == "-" else found.flow_id,
        "" if found.flow_type == "-" else found.flow_type,
    )


def identifier(found: QuarantinedMessage) -> str:
    """`AGENT/NUMBER`, or the number alone in the coordinator's own quarantine."""
    return f"{found.agent}/{found.quarantine_id}" if found.agent else f"{found.quarantine_id}"


def detail(found: QuarantinedMessage) -> Detail:
    """The message with its bytes."""
    body = found.message.body
    sequence = found.message.stream_sequence
    facts = (
        ("subject", found.message.subject),
        ("event", found.event_id),
        ("position in FLOW", str(sequence) if sequence else "it was never stored there"),
        ("size", f"{len(body)} bytes"),
    )
    return Detail(row(found), facts, tuple(hex_lines(body[:_MOST_BYTES])), len(body) > _MOST_BYTES)


def hex_lines(body: bytes) -> list[str]:
    """Bytes in hex with their characters beside, sixteen on a line."""
    lines = []
    for start in range(0, len(body), _BYTES_A_LINE):
        part = body[start : start + _BYTES_A_LINE]
        characters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:04x}  {part.hex(' '):{_BYTES_A_LINE * 3}} {characters}")
    return lines
