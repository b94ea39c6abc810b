"""How a command ends: an exit code for scripts, and one line of text for people."""

from __future__ import annotations

from enum import IntEnum


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
    """Ends the command with one line on stderr and an exit code. `reason` is the name of an ErrorReason, or empty."""

    def __init__(self, text: str, code: Exit = Exit.FAILED, *, reason: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.reason = reason
