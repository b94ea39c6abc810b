"""Errors as callers see them: a `google.rpc.Status` with an `ErrorInfo`, and further details that help to act on it.

One table maps each reason to its gRPC code. Trailers hold only a few kilobytes, so long lists and texts are cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from handrail.mesh.errors import ContractViolation, HandrailError, TemplateRefused
from handrail.v1.error_reason_pb2 import ErrorReason

DOMAIN = "handrail"
"""The `ErrorInfo.domain` of every error of this API."""

_R = ErrorReason
_INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
_NOT_FOUND = grpc.StatusCode.NOT_FOUND
_ALREADY_EXISTS = grpc.StatusCode.ALREADY_EXISTS
_FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
_ABORTED = grpc.StatusCode.ABORTED
_PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED
_UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
_RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED

# INVALID_ARGUMENT: invalid in any state. FAILED_PRECONDITION: not in this state. ABORTED: lost a race, read and retry.
# UNAVAILABLE: retry with backoff. See https://google.aip.dev/193 and google/rpc/code.proto.
CODES: Mapping[ErrorReason.ValueType, grpc.StatusCode] = {
    _R.ERROR_REASON_MALFORMED: _INVALID_ARGUMENT,
    _R.ERROR_REASON_CONTRACT_VIOLATION: _INVALID_ARGUMENT,
    _R.ERROR_REASON_WRONG_ADDRESS: _INVALID_ARGUMENT,
    _R.ERROR_REASON_WRONG_EVENT_ID: _INVALID_ARGUMENT,
    _R.ERROR_REASON_WRONG_VERSION: _FAILED_PRECONDITION,
    _R.ERROR_REASON_GATE_BYPASSED: _PERMISSION_DENIED,
    _R.ERROR_REASON_WRONG_AGENT: _PERMISSION_DENIED,
    _R.ERROR_REASON_TOO_LARGE: _INVALID_ARGUMENT,
    _R.ERROR_REASON_FLOW_NOT_FOUND: _NOT_FOUND,
    _R.ERROR_REASON_FLOW_ARCHIVED: _FAILED_PRECONDITION,
    _R.ERROR_REASON_ARCHIVE_DAMAGED: grpc.StatusCode.DATA_LOSS,
    _R.ERROR_REASON_FLOW_TYPE_NOT_FOUND: _NOT_FOUND,
    _R.ERROR_REASON_TEMPLATE_NOT_FOUND: _NOT_FOUND,
    _R.ERROR_REASON_TEMPLATE_EXISTS: _ALREADY_EXISTS,
    _R.ERROR_REASON_TEMPLATE_REFUSED: _INVALID_ARGUMENT,
    _R.ERROR_REASON_UNKNOWN_MESSAGE_TYPE: _INVALID_ARGUMENT,
    _R.ERROR_REASON_APPROVAL_NOT_FOUND: _NOT_FOUND,
    _R.ERROR_REASON_APPROVAL_CLOSED: _FAILED_PRECONDITION,
    _R.ERROR_REASON_DIGEST_MISMATCH: _FAILED_PRECONDITION,
    _R.ERROR_REASON_ALREADY_VOTED: _FAILED_PRECONDITION,
    _R.ERROR_REASON_REQUESTER_MAY_NOT_VOTE: _PERMISSION_DENIED,
    _R.ERROR_REASON_MISSING_ROLE: _PERMISSION_DENIED,
    _R.ERROR_REASON_UNAUTHENTICATED: _UNAUTHENTICATED,
    _R.ERROR_REASON_TOKEN_EXPIRED: _UNAUTHENTICATED,
    _R.ERROR_REASON_WRONG_STATUS: _FAILED_PRECONDITION,
    _R.ERROR_REASON_STEP_NOT_FOUND: _NOT_FOUND,
    _R.ERROR_REASON_ESCALATION_NOT_FOUND: _NOT_FOUND,
    _R.ERROR_REASON_CHOICE_NOT_OFFERED: _FAILED_PRECONDITION,
    _R.ERROR_REASON_ETAG_MISMATCH: _ABORTED,
    _R.ERROR_REASON_REQUEST_ID_REUSED: _ALREADY_EXISTS,
    _R.ERROR_REASON_BAD_PAGE_TOKEN: _INVALID_ARGUMENT,
    _R.ERROR_REASON_BAD_FILTER: _INVALID_ARGUMENT,
    _R.ERROR_REASON_FLOW_BUSY: _UNAVAILABLE,
    _R.ERROR_REASON_WORKERS_DO_NOT_FIT: _FAILED_PRECONDITION,
    _R.ERROR_REASON_BROKER_UNAVAILABLE: _UNAVAILABLE,
    _R.ERROR_REASON_INDEX_UNAVAILABLE: _UNAVAILABLE,
    _R.ERROR_REASON_NO_INDEX: _FAILED_PRECONDITION,
    _R.ERROR_REASON_STREAM_FULL: _RESOURCE_EXHAUSTED,
    _R.ERROR_REASON_BROKER_TOO_OLD: _FAILED_PRECONDITION,
    _R.ERROR_REASON_FOREIGN_STREAM: _FAILED_PRECONDITION,
    _R.ERROR_REASON_STREAM_LOST: _FAILED_PRECONDITION,
    _R.ERROR_REASON_BROKER_PERMISSION: _FAILED_PRECONDITION,
    _R.ERROR_REASON_DIFFERENT_ANSWER: _ALREADY_EXISTS,
    _R.ERROR_REASON_DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    _R.ERROR_REASON_INTERNAL: grpc.StatusCode.INTERNAL,
    _R.ERROR_REASON_QUARANTINE_NOT_FOUND: _NOT_FOUND,
    _R.ERROR_REASON_DRAINING: _UNAVAILABLE,
    _R.ERROR_REASON_PROPOSER_MAY_NOT_VOTE: _PERMISSION_DENIED,
    _R.ERROR_REASON_AMBIGUOUS_NAME: _UNAUTHENTICATED,
    _R.ERROR_REASON_CONSENT_NEEDED: _FAILED_PRECONDITION,
    _R.ERROR_REASON_VERIFICATION_UNAVAILABLE: _UNAVAILABLE,
    _R.ERROR_REASON_LIMIT_EXCEEDED: _RESOURCE_EXHAUSTED,
    _R.ERROR_REASON_DELEGATION_NOT_FOUND: _NOT_FOUND,
    _R.ERROR_REASON_DELEGATION_REFUSED: _FAILED_PRECONDITION,
    _R.ERROR_REASON_REASSIGNER_MAY_NOT_VOTE: _PERMISSION_DENIED,
    _R.ERROR_REASON_ACT_NOT_FOUND: _NOT_FOUND,
    _R.ERROR_REASON_ACT_CLOSED: _FAILED_PRECONDITION,
    _R.ERROR_REASON_SAME_PERSON: _PERMISSION_DENIED,
    _R.ERROR_REASON_TWO_PERSONS_NEEDED: _FAILED_PRECONDITION,
}
"""The gRPC code of each reason."""

# How long to wait before a retry, for reasons where a retry helps.
_RETRY_AFTER = {
    _R.ERROR_REASON_FLOW_BUSY: timedelta(milliseconds=500),
    _R.ERROR_REASON_BROKER_UNAVAILABLE: timedelta(seconds=1),
    _R.ERROR_REASON_INDEX_UNAVAILABLE: timedelta(seconds=5),
    _R.ERROR_REASON_STREAM_FULL: timedelta(seconds=5),
    _R.ERROR_REASON_DRAINING: timedelta(milliseconds=100),
    _R.ERROR_REASON_VERIFICATION_UNAVAILABLE: timedelta(seconds=5),
    _R.ERROR_REASON_LIMIT_EXCEEDED: timedelta(seconds=1),
}

# The kind of resource that was not found, and the metadata field that names it.
_RESOURCES = {
    _R.ERROR_REASON_FLOW_NOT_FOUND: ("flow", "flow_id"),
    _R.ERROR_REASON_FLOW_TYPE_NOT_FOUND: ("flow type", "flow_type"),
    _R.ERROR_REASON_TEMPLATE_NOT_FOUND: ("template", "template"),
    _R.ERROR_REASON_TEMPLATE_EXISTS: ("template", "template"),
    _R.ERROR_REASON_APPROVAL_NOT_FOUND: ("approval", "approval_id"),
    _R.ERROR_REASON_ACT_NOT_FOUND: ("act", "act_id"),
    _R.ERROR_REASON_STEP_NOT_FOUND: ("step", "step"),
    _R.ERROR_REASON_ESCALATION_NOT_FOUND: ("escalation", "escalation_id"),
    _R.ERROR_REASON_DELEGATION_NOT_FOUND: ("delegation", "delegation_id"),
    _R.ERROR_REASON_QUARANTINE_NOT_FOUND: ("quarantined message", "quarantine_id"),
}

# Bytes. grpc-core refuses trailers beyond 8 KiB: the text percent-encoded, plus text and details in base64.
_MAX_TEXT = 600
_MAX_VALUE = 200
_MAX_VIOLATIONS = 2_400


def to_status(error: HandrailError) -> status_pb2.Status:
    """Converts an error into a status with details."""
    status = status_pb2.Status(
        code=CODES.get(error.reason, grpc.StatusCode.INTERNAL).value[0], message=_cut(error.text, _MAX_TEXT)
    )
    info = error_details_pb2.ErrorInfo(reason=error.reason_name, domain=DOMAIN)
    for key, value in error.metadata.items():
        info.metadata[key] = _cut(value, _MAX_VALUE)
    status.details.append(_pack(info))
    for detail in _further_details(error):
        status.details.append(_pack(detail))
    return status


def _further_details(error: HandrailError) -> Iterable[Message]:
    if isinstance(error, ContractViolation):
        yield _bad_request((v.field, v.rule, v.text) for v in error.violations)
    elif isinstance(error, TemplateRefused):
        yield _bad_request((f"template.{f.path}", f.code, f"{f.text} {f.remedy}".strip()) for f in error.findings)
    elif CODES.get(error.reason) is _FAILED_PRECONDITION:
        subject = next(iter(error.metadata.values()), "")
        failure = error_details_pb2.PreconditionFailure()
        failure.violations.add(
            type=error.reason_name, subject=_cut(subject, _MAX_VALUE), description=_cut(error.text, _MAX_VALUE)
        )
        yield failure
    if error.reason in _RETRY_AFTER:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(_RETRY_AFTER[error.reason])
        yield retry
    if error.reason in _RESOURCES:
        kind, key = _RESOURCES[error.reason]
        name = _cut(error.metadata.get(key, ""), _MAX_VALUE)
        yield error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name)


def _bad_request(violations: Iterable[tuple[str, str, str]]) -> error_details_pb2.BadRequest:
    """Lists as many violations as fit; the last entry counts the rest."""
    bad_request = error_details_pb2.BadRequest()
    left_out = 0
    for field, rule, text in violations:
        if left_out or bad_request.ByteSize() > _MAX_VIOLATIONS:
            left_out += 1
            continue
        bad_request.field_violations.add(
            field=_cut(field, _MAX_VALUE), reason=_cut(rule, _MAX_VALUE), description=_cut(text, _MAX_VALUE)
        )
    if left_out:
        bad_request.field_violations.add(description=f"and {left_out} more")
    return bad_request


def _pack(detail: Message) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed


def _cut(text: str, limit: int) -> str:
    """Cuts a text to at most `limit` bytes of UTF-8."""
    encoded = text.encode()
    return text if len(encoded) <= limit else encoded[: limit - 3].decode(errors="ignore") + "…"
