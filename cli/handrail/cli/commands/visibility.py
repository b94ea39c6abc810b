"""`handrail visibility`: keeps the index of flows."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

import uvloop

from handrail.cli.arguments import VISIBILITY, add_settings, settings_of
from handrail.cli.exit_codes import CommandError, Exit
from handrail.mesh import settings as table
from handrail.mesh.permissions import VISIBILITY as USER
from handrail.mesh.settings import bus_settings
from handrail.mesh.telemetry import logs


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.description = (
        "Follow all flows, archive their messages, and keep an index of them in a database, until SIGTERM or Ctrl-C. "
        f"Run one for each database. {table.DATABASE.env} names it [default {table.DATABASE.default}]."
    )
    add_settings(parser, VISIBILITY)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    if find_spec("sqlalchemy") is None:
        raise CommandError("the package SQLAlchemy is missing: install handrail[visibility]")
    from handrail.visibility.main import run_visibility

    settings = settings_of(arguments)
    logs.configure(settings.value(table.LOG_LEVEL).upper())
    archive = settings.value(table.ARCHIVE)
    try:
        uvloop.run(run_visibility(bus_settings(settings, USER), settings.value(table.DATABASE), archive))
    except OSError as error:
        raise CommandError(f"the archive in {archive} can't be opened: {error.strerror}") from None
    return Exit.OK
