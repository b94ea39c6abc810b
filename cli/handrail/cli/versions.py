"""NAME@VERSION: how the command line names a version of a template."""

from __future__ import annotations

import argparse
from typing import NamedTuple

from handrail.cli.arguments import positive
from handrail.cli.exit_codes import CommandError, Exit


class Version(NamedTuple):
    """A version of a template; 0 for the active one."""

    name: str
    number: int

    def __str__(self) -> str:
        return f"{self.name}@{self.number}" if self.number else self.name


def version(text: str) -> Version:
    """Parses NAME or NAME@VERSION, for argparse."""
    name, at, number = text.partition("@")
    if not name:
        raise argparse.ArgumentTypeError(f'"{text}" is not a template: use NAME@VERSION, such as refund@2')
    return Version(name, positive(number) if at else 0)


def add_version(parser: argparse.ArgumentParser, *, or_active: bool = False) -> None:
    """Adds NAME@VERSION; with `or_active` a missing version means the active one."""
    metavar = "NAME[@VERSION]" if or_active else "NAME@VERSION"
    text = "a stored version [default: the active one]" if or_active else "a stored version, such as refund@2"
    parser.add_argument("template", type=version, metavar=metavar, help=text)
    # The version as a separate word is accepted, too.
    parser.add_argument("number", nargs="?", type=positive, default=0, help=argparse.SUPPRESS)
    parser.set_defaults(needs_number=not or_active)


def version_of(arguments: argparse.Namespace) -> Version:
    """Returns the version that the arguments name; raises CommandError if they name none or two."""
    named: Version = arguments.template
    if named.number and arguments.number:
        raise CommandError(f"{named} names a version already: remove {arguments.number}", Exit.USAGE)
    found = Version(named.name, named.number or arguments.number)
    if arguments.needs_number and not found.number:
        raise CommandError(f"no version of {found.name} is named: use {found.name}@VERSION", Exit.USAGE)
    return found
