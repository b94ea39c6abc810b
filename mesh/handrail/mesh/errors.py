"""Every error that Handrail raises on purpose.

HandrailError                 what happened, with a reason from `handrail.v1.ErrorReason`
├── ContractViolation         a message breaks a rule of its contract
├── AlreadyStored             the subject is taken: one fact, one event
├── WrongSequence             the flow moved on since it was read
├── StreamFull                the stream is at its limit; nothing acknowledged is lost
├── TooLarge                  the message is larger than the broker accepts
├── BrokerUnavailable         no answer from the broker
├── BrokerPermission          the broker refuses the subject
│   └── WrongCredentials      credentials are missing, unusable, or rejected by the broker
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
    """An error with a reason for programs and a text for people.

    `reason` is a value of `handrail.v1.ErrorReason`; `metadata` holds the variable parts of the text.
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
    """One broken rule: the path of the field, the id of the rule, and the rule in words."""

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
    """The subject already holds a message; the stream refuses a second one."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        super().__init__(ErrorReason.ERROR_REASON_DIFFERENT_ANSWER, f"{subject} is already stored", subject=subject)


class WrongSequence(HandrailError):
    """The flow has new messages since it was read: read it again and decide again."""

    def __init__(self, subject: str, last_sequence: int | None = None) -> None:
        self.subject = subject
        self.last_sequence = last_sequence
        super().__init__(
            ErrorReason.ERROR_REASON_ETAG_MISMATCH, f"the flow of {subject} has moved on since it was read"
        )


class StreamFull(HandrailError):
    """The stream is at its limit. It keeps acknowledged messages; publish again when there is room."""

    def __init__(self, stream: str, detail: str) -> None:
        super().__init__(
            ErrorReason.ERROR_REASON_STREAM_FULL,
            f"stream {stream} is full ({detail}); publishing continues once you raise its limits or old flows age out",
            stream=stream,
        )


class TooLarge(HandrailError):
    """The message is larger than the broker accepts. The metadata `size` and `limit` are in bytes."""

    def __init__(self, subject: str, size: int, limit: int) -> None:
        super().__init__(
            ErrorReason.ERROR_REASON_TOO_LARGE,
            f"the message on {subject} has {size} bytes, the broker accepts {limit}; "
            "store large content elsewhere and send a reference to it",
            subject=subject,
            size=str(size),
            limit=str(limit),
        )


class BrokerUnavailable(HandrailError):
    """The broker is unreachable, or does not answer in time."""

    def __init__(self, text: str) -> None:
        super().__init__(ErrorReason.ERROR_REASON_BROKER_UNAVAILABLE, text)


class BrokerPermission(HandrailError):
    """The broker refuses a publish or a subscription because the user lacks the permission."""

    def __init__(self, subject: str, detail: str = "") -> None:
        super().__init__(
            ErrorReason.ERROR_REASON_BROKER_PERMISSION,
            f"the broker refuses {subject}{': ' + detail if detail else ''}; "
            "regenerate its permissions from the stored templates (handrail nats-permissions) and reload it",
            subject=subject,
        )


class WrongCredentials(BrokerPermission):
    """The credentials are missing, unusable, or rejected by the broker. No permission is missing."""

    def __init__(self, text: str) -> None:
        HandrailError.__init__(self, ErrorReason.ERROR_REASON_BROKER_PERMISSION, text)


class PolicyError(HandrailError):
    """A CEL expression can't be compiled, or did not give a valid answer."""

    def __init__(self, text: str) -> None:
        super().__init__(ErrorReason.ERROR_REASON_TEMPLATE_REFUSED, text)


class TemplateRefused(HandrailError):
    """The flow type-check found errors, listed in `findings`."""

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
