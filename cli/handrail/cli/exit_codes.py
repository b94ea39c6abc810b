"""How a command ends: an exit code for scripts, and one line of text for people."""

from __future__ import annotations

from enum import IntEnum

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


_REASONS = {
    ErrorReason.ERROR_REASON_BROKER_UNAVAILABLE: Exit.UNREACHABLE,
    ErrorReason.ERROR_REASON_BROKER_PERMISSION: Exit.FORBIDDEN,
    ErrorReason.ERROR_REASON_STREAM_LOST: Exit.NOT_FOUND,
}


def of_error(error: HandrailError) -> CommandError:
    """Converts a local error into the command's error."""
    if isinstance(error, TemplateRefused):
        return CommandError("\n".join([f"template {error.metadata['template']} is refused", *map(str, error.findings)]))
    return CommandError(f"{error.text} ({error.reason_name})", _REASONS.get(error.reason, Exit.FAILED))
