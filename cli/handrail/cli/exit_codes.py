"""How a command ends: exit codes that scripts can tell apart, and one line of text for people."""

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
    """Refused, or failed for another reason than those below."""
    USAGE = 2
    """Wrong arguments or settings; nothing was tried."""
    UNREACHABLE = 3
    """The server could not be reached, or gave no answer in time; trying again may help."""
    NOT_FOUND = 4
    FORBIDDEN = 5
    """No token, a bad one, or one without the role it takes."""
    INTERRUPTED = 130
    """Ended by Ctrl-C: 128 and the number of SIGINT, as shells have it."""


class CommandError(Exception):
    """Ends the command with one line on stderr and this exit code."""

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
    """What a failed call means for the command."""
    code = _CODES.get(error.code(), Exit.FAILED)
    reason, fields = _details(error)
    text = error.details() or ""
    if reason:
        return CommandError(f"{text}{fields} ({reason})", code)
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return CommandError(f"no coordinator answers at {address}: {_last_line(text)}", code)
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return CommandError(f"{address} gave no answer in time; --timeout allows for more", code)
    return CommandError(f"{text} ({error.code().name})", code)


def of_error(error: HandrailError) -> CommandError:
    """What an error on this side means for the command."""
    if isinstance(error, TemplateRefused):
        return CommandError("\n".join([f"template {error.metadata['template']} is refused", *map(str, error.findings)]))
    return CommandError(f"{error.text} ({error.reason_name})", _REASONS.get(error.reason, Exit.FAILED))


def _details(call: grpc.Call) -> tuple[str, str]:
    """The reason, and what is wrong with which field where the text doesn't say so."""
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
    """gRPC explains a failed connection at length; the end says what happened."""
    return text.rpartition(";")[2].rpartition(": ")[2].strip(" ]") or "connection failed"
