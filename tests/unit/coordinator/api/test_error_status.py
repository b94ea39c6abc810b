"""Errors as gRPC statuses: every reason has a code, every refusal its details, and all of it fits into trailers."""

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from handrail.cli.complaint import complaint
from handrail.cli.exit_codes import Exit
from handrail.coordinator.api.error_status import CODES, to_status
from handrail.mesh.bus.api import STREAM_NOT_FOUND, ApiError
from handrail.mesh.errors import ContractViolation, FieldViolation, HandrailError, TemplateRefused
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.template_pb2 import Finding, Severity

REASONS = [reason for reason in ErrorReason.values() if reason != ErrorReason.ERROR_REASON_UNSPECIFIED]

# grpc-core's default for all metadata of a call together.
METADATA_LIMIT = 8 << 10


def trailer_bytes(status: Status) -> int:
    """What a status takes on the wire: the details in base64, the text percent-encoded, at worst three for one."""
    return len(status.SerializeToString()) * 4 // 3 + 3 * len(status.message.encode())


@pytest.mark.parametrize("reason", REASONS, ids=ErrorReason.Name)
def test_every_reason_has_a_code_and_its_error_info(reason: ErrorReason.ValueType) -> None:
    status = to_status(HandrailError(reason, "what happened", flow_id="f1"))
    assert status.code == CODES[reason].value[0]
    info = error_details_pb2.ErrorInfo.FromString(status.details[0].value)
    assert f"ERROR_REASON_{info.reason}" == ErrorReason.Name(reason)
    assert (info.domain, dict(info.metadata)) == ("handrail", {"flow_id": "f1"})
    kinds = [detail.TypeName() for detail in status.details]
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize(
    "code,detail",
    [
        (grpc.StatusCode.FAILED_PRECONDITION, error_details_pb2.PreconditionFailure),
        (grpc.StatusCode.UNAVAILABLE, error_details_pb2.RetryInfo),
        (grpc.StatusCode.NOT_FOUND, error_details_pb2.ResourceInfo),
    ],
)
def test_a_code_comes_with_the_detail_that_helps(code: grpc.StatusCode, detail: type[Message]) -> None:
    reasons = [reason for reason in REASONS if CODES[reason] is code]
    assert reasons
    for reason in reasons:
        status = to_status(HandrailError(reason, "what happened"))
        assert detail.DESCRIPTOR.full_name in {packed.TypeName() for packed in status.details}


LONG = 'äöü""' * 2000
ERRORS = {
    "a long text": HandrailError(ErrorReason.ERROR_REASON_FLOW_NOT_FOUND, LONG, flow_id=LONG, flow_type=LONG),
    "many fields": ContractViolation("a.v1.B", [FieldViolation(f"{LONG}{n}", LONG, LONG) for n in range(500)]),
    "many findings": TemplateRefused(
        LONG, [Finding(code="HR001", severity=Severity.SEVERITY_ERROR, path=LONG, text=LONG)] * 500
    ),
    "a wrong state": HandrailError(ErrorReason.ERROR_REASON_WRONG_STATUS, LONG, flow_id=LONG),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_status_fits_into_the_trailers_whatever_is_wrong(case: str) -> None:
    assert trailer_bytes(to_status(ERRORS[case])) < METADATA_LIMIT


def test_what_does_not_fit_is_counted() -> None:
    status = to_status(ERRORS["many fields"])
    violations = error_details_pb2.BadRequest.FromString(status.details[1].value).field_violations
    assert violations[-1].description == f"and {501 - len(violations)} more"


def test_a_stream_that_is_gone_is_said_to_be_and_a_command_could_not_look() -> None:
    gone = ApiError("$JS.API.STREAM.INFO.FLOW", STREAM_NOT_FOUND, "stream not found")
    assert gone.reason == ErrorReason.ERROR_REASON_STREAM_LOST
    said = complaint(gone, command="flow")
    assert said is not None
    assert said.code is Exit.NOT_FOUND
