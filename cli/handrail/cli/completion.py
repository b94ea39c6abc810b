"""Completes a command line: a shell asks for what could follow."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from handrail.cli.parser import Parser

ASKED = "_ARGCOMPLETE"
"""The environment variable of a shell that asks."""


def complete(parser_of: Callable[[Sequence[str]], Parser]) -> None:
    """Answers the shell, and ends the process. `parser_of` returns the parser with the arguments of some commands."""
    import argcomplete

    words = os.environ.get("COMP_LINE", "").split()
    argcomplete.autocomplete(parser_of(words[1:2]), always_complete_options="long")
