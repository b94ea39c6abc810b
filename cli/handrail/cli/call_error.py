"""What a failed call of a coordinator means for the command: its exit code, and one line of text."""

from __future__ import annotations

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from handrail.cli.exit_codes import CommandError, Exit

_CODES = {
    grpc.StatusCode.UNAVAILABLE: Exit.UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Exit.UNREACHABLE,
    grpc.StatusCode.NOT_FOUND: Exit.NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED: Exit.FORBIDDEN,
    grpc.StatusCode.PERMISSION_DENIED: Exit.FORBIDDEN,
}


def of_call(error: grpc.Call, *, address: str) -> CommandError:
    """Converts a failed call into the command's error."""
    code = _CODES.get(error.code(), Exit.FAILED)
    reason, fields = _details(error)
    text = error.details() or ""
    if reason:
        return CommandError(f"{text}{fields} ({reason})", code, reason=reason)
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return CommandError(f"no coordinator answers at {address}: {_last_line(text)}", code, reason="UNAVAILABLE")
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        text = f"{address} did not answer in time; raise --timeout to wait longer"
        return CommandError(text, code, reason="DEADLINE_EXCEEDED")
    return CommandError(f"{text} ({error.code().name})", code, reason=error.code().name)


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
