"""`handrail contracts`: generates and checks a project's contracts, and reports whom a change to them affects."""

from __future__ import annotations

import argparse

from handrail.cli.commands import contracts_check, contracts_generate, contracts_impact, contracts_vendor


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    contracts_check.fill(verbs)
    contracts_impact.fill(verbs)
    contracts_generate.fill(verbs)
    contracts_vendor.fill(verbs)
