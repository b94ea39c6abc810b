"""What an exception means to whoever called the command: an exit code and one line.

Loaded only if there is one, because the errors' contracts take longer to load than a short command takes.
"""

from __future__ import annotations

from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.extras import advice
from handrail.mesh.errors import HandrailError, TemplateRefused
from handrail.mesh.setting import SettingError
from handrail.v1.error_reason_pb2 import ErrorReason

_REASONS = {
    ErrorReason.ERROR_REASON_BROKER_UNAVAILABLE: Exit.UNREACHABLE,
    ErrorReason.ERROR_REASON_BROKER_PERMISSION: Exit.FORBIDDEN,
    ErrorReason.ERROR_REASON_STREAM_LOST: Exit.NOT_FOUND,
}


def complaint(error: Exception, *, command: str) -> CommandError | None:
    """Returns the command's error; None for an exception that is a fault of the program."""
    if isinstance(error, CommandError):
        return error
    if isinstance(error, SettingError):
        return CommandError(str(error), Exit.USAGE)
    if isinstance(error, HandrailError):
        return _of_ours(error)
    if isinstance(error, UnicodeEncodeError):  # what is no UTF-8 in an argument can't be sent, nor printed
        return CommandError("an argument is not UTF-8 text", Exit.USAGE)
    if isinstance(error, ModuleNotFoundError):
        text = advice(error, command)
        return None if text is None else CommandError(text, Exit.USAGE)
    return None


def _of_ours(error: HandrailError) -> CommandError:
    if isinstance(error, TemplateRefused):
        return CommandError("\n".join([f"template {error.metadata['template']} is refused", *map(str, error.findings)]))
    code = _REASONS.get(error.reason, Exit.FAILED)
    return CommandError(f"{error.text} ({error.reason_name})", code, reason=error.reason_name)
