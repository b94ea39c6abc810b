"""How a command ends: an exit code for scripts, and one line of text for people."""

from __future__ import annotations

from enum import IntEnum

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from handrail.mesh.errors import HandrailError, TemplateRefused
from handrail.v1.error_reason_pb2 import ErrorReason


class Exit(IntEnum):
    """Exit codes; `docs/operations.md` lists them."""

    OK = 0
    FAILED = 1
    """Refused, or failed for a reason that has no code of its own."""
    USAGE = 2
    """Wrong arguments or settings; nothing was tried."""
    UNREACHABLE = 3
    """The server could not be reached, or did not answer in time; a retry may help."""
    NOT_FOUND = 4
    FORBIDDEN = 5
    """No token, an invalid one, or one without the required role."""
    PENDING = 6
    """Nothing is done yet: another person has to confirm it."""
    INTERRUPTED = 130
    """Ended by Ctrl-C: 128 plus the number of SIGINT, as in shells."""


class CommandError(Exception):
    """Ends the command with one line on stderr and an exit code."""

    def __init__(self, text: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


_CODES = {
    grpc.StatusCode.UNAVAILABLE: Exit.UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Exit.UNREACHABLE,
    grpc.StatusCode.NOT_FOUND: Exit.NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED: Exit.FORBIDDEN,
    grpc.StatusCode.PERMISSION_DENIED: Exit.FORBIDDEN,
}

_REASONS = {
    ErrorReason.ERROR_REASON_BROKER_UNAVAILABLE: Exit.UNREACHABLE,
    ErrorReason.ERROR_REASON_BROKER_PERMISSION: Exit.FORBIDDEN,
    ErrorReason.ERROR_REASON_STREAM_LOST: Exit.NOT_FOUND,
}


def of_call(error: grpc.Call, *, address: str) -> CommandError:
    """Converts a failed call into the command's error."""
    code = _CODES.get(error.code(), Exit.FAILED)
    reason, fields = _details(error)
    text = error.details() or ""
    if reason:
        return CommandError(f"{text}{fields} ({reason})", code)
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return CommandError(f"no coordinator answers at {address}: {_last_line(text)}", code)
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return CommandError(f"{address} did not answer in time; raise --timeout to wait longer", code)
    return CommandError(f"{text} ({error.code().name})", code)


def of_error(error: HandrailError) -> CommandError:
    """Converts a local error into the command's error."""
    if isinstance(error, TemplateRefused):
        return CommandError("\n".join([f"template {error.metadata['template']} is refused", *map(str, error.findings)]))
    return CommandError(f"{error.text} ({error.reason_name})", _REASONS.get(error.reason, Exit.FAILED))


def _details(call: grpc.Call) -> tuple[str, str]:
    """Returns the reason, and the field violations that the text does not mention."""
    status = rpc_status.from_call(call)
    reason, fields = "", ""
    for detail in status.details if status is not None else ():
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad):
            missing = [f"{each.field}: {each.description}" for each in bad.field_violations]
            fields = "".join(f"; {each}" for each in missing if each not in (call.details() or ""))
    return reason, fields


def _last_line(text: str) -> str:
    """Returns the end of gRPC's long explanation of a failed connection, which says what happened."""
    return text.rpartition(";")[2].rpartition(": ")[2].strip(" ]") or "connection failed"
