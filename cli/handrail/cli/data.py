"""Messages on the command line: JSON as it is, from a file, or from standard input."""

from __future__ import annotations

import sys
from pathlib import Path

from handrail.cli.exit_codes import CommandError, Exit

HELP = "as JSON; @FILE reads a file, - stdin"


def data_text(argument: str) -> str:
    """Returns the argument itself, or the text of the file that it names. Raises CommandError if it can't be read."""
    try:
        if argument == "-":
            return sys.stdin.read()
        return Path(argument[1:]).read_text("utf-8") if argument.startswith("@") else argument
    except OSError as error:
        raise CommandError(f"--data: {error.filename} can't be read: {error.strerror}", Exit.USAGE) from None
    except UnicodeDecodeError as error:
        raise CommandError(
            f"--data: {argument.removeprefix('@')} is not UTF-8 text: {error.reason}", Exit.USAGE
        ) from None
