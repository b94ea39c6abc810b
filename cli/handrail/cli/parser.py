"""The parser of command lines: an unknown word is answered with the known one that it resembles."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from handrail.cli.exit_codes import CommandError, Exit


def _width() -> int:
    try:
        return int(os.environ["COLUMNS"]) - 2
    except (KeyError, ValueError):
        pass
    try:
        return os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ else 1).columns - 2
    except (OSError, ValueError):
        return 78


_WIDTH = max(40, _width())
"""How wide a page of help is, in characters: two less than the terminal, as in argparse."""


class Parser(argparse.ArgumentParser):
    """Like argparse's, but it takes no abbreviations, and raises CommandError for wrong arguments.

    The parsed arguments have the parser of the innermost command as `parser`.
    """

    def __init__(self, **options: Any) -> None:  # argparse's own
        super().__init__(**{**options, "allow_abbrev": False, "formatter_class": _formatter})
        self.set_defaults(parser=self)

    def error(self, message: str) -> NoReturn:
        """Raises CommandError with Exit.USAGE."""
        raise CommandError(f"{message} (see {self.prog} --help)", Exit.USAGE)

    def refuse(self, rest: Sequence[str]) -> NoReturn:
        """Raises CommandError for words that are left over."""
        options = [each.partition("=")[0] for each in rest if each.startswith("-")]
        hint = similar(options[0], self._option_string_actions) if options else ""
        self.error(f"unrecognized arguments: {' '.join(rest)}{hint}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # argparse's own
        """Raises ArgumentError, with the choice that the value resembles."""
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            hint = similar(str(value), map(str, action.choices or ()))
            if hint:
                error.message = f'there is no "{value}"{hint}'
            raise


def _formatter(prog: str) -> argparse.HelpFormatter:
    """Formats help. Without a width, argparse asks the terminal anew for each argument that is added."""
    return argparse.HelpFormatter(prog, width=_WIDTH)


def similar(word: str, known: Iterable[str]) -> str:
    """A hint at the known word that is most like this one, to append to an error; empty if none is."""
    import difflib  # needed for a mistake alone

    close = difflib.get_close_matches(word, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
