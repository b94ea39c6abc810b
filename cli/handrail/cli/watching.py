"""`--watch`: shows what a command shows again and again, in its place on the terminal."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.terminal import is_terminal

_SECONDS = 2.0
_HOME_AND_CLEAR = "\x1b[H\x1b[J"


def add_watch(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], Exit]) -> None:
    """Adds the flag, and has the parser run the command, once or until Ctrl-C."""
    parser.add_argument("--watch", action="store_true", help="show it again every 2 s, until Ctrl-C; needs a terminal")
    parser.set_defaults(run=lambda arguments: _watch(run, arguments) if arguments.watch else run(arguments))


class _Screen(StringIO):
    """Takes what is printed for a terminal."""

    def isatty(self) -> bool:
        """A table fits the terminal that it is shown on later."""
        return True


def _watch(run: Callable[[argparse.Namespace], Exit], arguments: argparse.Namespace) -> Exit:
    if not is_terminal():
        raise CommandError("--watch needs a terminal; programs read handrail flow watch FLOW --output json", Exit.USAGE)
    try:
        while True:
            screen = _Screen()
            with redirect_stdout(screen), redirect_stderr(screen):
                run(arguments)
            sys.stdout.write(_HOME_AND_CLEAR + screen.getvalue())
            sys.stdout.flush()
            time.sleep(_SECONDS)
    except KeyboardInterrupt:
        return Exit.OK
