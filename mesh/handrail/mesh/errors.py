"""Every error that Handrail raises on purpose.

HandrailError                 what happened, with a reason from `handrail.v1.ErrorReason`
├── ContractViolation         a message breaks a rule of its contract
├── AlreadyStored             the subject is taken: one fact, one event
├── WrongSequence             the flow moved on since it was read
├── StreamFull                the stream is at its limit; nothing acknowledged is lost
├── TooLarge                  the message is larger than the broker takes
├── BrokerUnavailable         no answer from the broker
├── BrokerPermission          the broker refuses the subject
│   └── WrongCredentials      there is nothing to connect with, or the broker does not take it
├── PolicyError               a CEL expression can't be compiled or evaluated
└── TemplateRefused           the flow type-check has findings
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.template_pb2 import Finding

_PREFIX = "ERROR_REASON_"


class HandrailError(Exception):
    """An error with a reason that programs can act on and a text that people can.

    `reason` is a value of `handrail.v1.ErrorReason`; `metadata` has the dynamic parts of the text.
    """

    def __init__(self, reason: ErrorReason.ValueType, text: str, **metadata: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.metadata = metadata

    @property
    def reason_name(self) -> str:
        """The reason without its prefix: `FLOW_NOT_FOUND`."""
        return ErrorReason.Name(self.reason).removeprefix(_PREFIX)


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One broken rule: the field's path, the rule's id, and what it asks for."""

    field: str
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.field or 'message'}: {self.text} [{self.rule}]"


class ContractViolation(HandrailError):
    """A message breaks one or more rules of its contract."""

    def __init__(self, message_type: str, violations: Sequence[FieldViolation]) -> None:
        self.message_type = message_type
        self.violations = tuple(violations)
        listed = "; ".join(map(str, self.violations))
        super().__init__(
            ErrorReason.ERROR_REASON_CONTRACT_VIOLATION,
            f"{message_type} breaks its contract: {listed}",
            type=message_type,
        )


class AlreadyStored(HandrailError):
    """The subject holds a message already; the stream refuses a second one."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        super().__init__(ErrorReason.ERROR_REASON_DIFFERENT_ANSWER, f"{subject} is stored already", subject=subject)


class WrongSequence(HandrailError):
    """The flow moved on since it was read: read it again and decide again."""

    def __init__(self, subject: str, last_sequence: int | None = None) -> None:
        self.subject = subject
        self.last_sequence = last_sequence
        super().__init__(ErrorReason.ERROR_REASON_ETAG_MISMATCH, f"the flow of {subject} moved on since it was read")


class StreamFull(HandrailError):
    """The stream is at its limit. What it acknowledged is kept; publish again when there is room."""

    def __init__(self, stream: str, detail: str) -> None:
        super().__init__(
            ErrorReason.ERROR_REASON_STREAM_FULL,
            f"stream {stream} is full ({detail}); raise its limits or let old flows age out, then it goes on",
            stream=stream,
        )


class TooLarge(HandrailError):
    """The message is larger than the broker takes; `size` and `limit` in bytes."""

    def __init__(self, subject: str, size: int, limit: int) -> None:
        super().__init__(
            ErrorReason.ERROR_REASON_TOO_LARGE,
            f"the message on {subject} has {size} bytes, the broker takes {limit}; "
            "keep large content elsewhere and send where it is",
            subject=subject,
            size=str(size),
            limit=str(limit),
        )


class BrokerUnavailable(HandrailError):
    """The broker can't be reached, or does not answer in time."""

    def __init__(self, text: str) -> None:
        super().__init__(ErrorReason.ERROR_REASON_BROKER_UNAVAILABLE, text)


class BrokerPermission(HandrailError):
    """The broker refuses a publish or subscription for want of permission."""

    def __init__(self, subject: str, detail: str = "") -> None:
        super().__init__(
            ErrorReason.ERROR_REASON_BROKER_PERMISSION,
            f"the broker refuses {subject}{': ' + detail if detail else ''}; "
            "generate its permissions anew from the stored templates (handrail nats-permissions) and reload",
            subject=subject,
        )


class WrongCredentials(BrokerPermission):
    """What there is to connect with can't be used, or the broker does not take it. No permission is missing."""

    def __init__(self, text: str) -> None:
        HandrailError.__init__(self, ErrorReason.ERROR_REASON_BROKER_PERMISSION, text)


class PolicyError(HandrailError):
    """A CEL expression can't be compiled, or gave something else than the answer it is for."""

    def __init__(self, text: str) -> None:
        super().__init__(ErrorReason.ERROR_REASON_TEMPLATE_REFUSED, text)


class TemplateRefused(HandrailError):
    """The flow type-check found errors; they are in `findings`."""

    def __init__(self, name: str, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        listed = "; ".join(f"{_place(each)}{each.code} {each.path}: {each.text}" for each in self.findings)
        super().__init__(
            ErrorReason.ERROR_REASON_TEMPLATE_REFUSED,
            f"template {name or '(without a name)'} is refused: {listed}",
            template=name,
        )


def _place(finding: Finding) -> str:
    return f"line {finding.line}, column {finding.column}: " if finding.line else ""
