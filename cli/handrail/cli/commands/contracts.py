"""`handrail contracts`: generate and check a project's contracts, and tell whom a change of them hits."""

from __future__ import annotations

import argparse

from handrail.cli.commands import contracts_check, contracts_generate, contracts_impact


def fill(parser: argparse.ArgumentParser) -> None:
    """Give the command's parser its arguments."""
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    contracts_check.fill(verbs)
    contracts_impact.fill(verbs)
    contracts_generate.fill(verbs)
