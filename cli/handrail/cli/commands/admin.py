"""`handrail admin`: work on the broker itself that no running part may do."""

from __future__ import annotations

import argparse

from handrail.cli.commands import admin_enable_retention, admin_reader, admin_setup


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    admin_setup.fill(verbs)
    admin_reader.fill(verbs)
    admin_enable_retention.fill(verbs)
