"""`handrail new`: creates a project to start from."""

from __future__ import annotations

import argparse
from pathlib import Path

from handrail.cli.exit_codes import Exit
from handrail.cli.project.scaffold import write


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.description = (
        "Write a working project: contracts, a template, two agents, tests and a Makefile. docs/first-agent.md goes on "
        "from there."
    )
    parser.add_argument("name", metavar="NAME", help="flow type and Python package, such as loans; the folder's name")
    parser.set_defaults(run=_new)


def _new(arguments: argparse.Namespace) -> Exit:
    name: str = arguments.name
    for path in write(name, Path(name)):
        print(path)
    print(f"\nNext: cd {name}; python -m pip install -r requirements.txt; make check; make test; make run")
    return Exit.OK
