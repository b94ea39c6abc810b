"""`handrail agent`: run agents."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from handrail.agents.errors import DeclarationError
from handrail.agents.runner import find_agents, run_here, run_workers
from handrail.cli.arguments import AGENT, add_settings, settings_of
from handrail.cli.exit_codes import CommandError, Exit
from handrail.mesh import settings as table
from handrail.mesh.setting import Settings
from handrail.mesh.settings import bus_settings
from handrail.mesh.telemetry import logs


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    run = verbs.add_parser(
        "run",
        help="run the workers of one or more agents",
        description=(
            "Run the workers of one or more agents until SIGTERM or Ctrl-C. Several agents share a process and its "
            "event loop; each connects as its own user. With several --workers, a process that dies is restarted."
        ),
    )
    run.add_argument("paths", metavar="MODULE:AGENT", nargs="+", help="such as demos.payments.ledger:agent")
    add_settings(run, AGENT)
    run.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    settings = settings_of(arguments)
    logs.configure(settings.value(table.LOG_LEVEL).upper())
    workers = settings.value(table.WORKERS)
    try:
        agents = find_agents(arguments.paths)
        of_each = {agent.name: bus_settings(settings, agent.name) for agent in agents}
        status = run_here(agents, of_each) if workers == 1 else _run_many(arguments.paths, settings, workers)
    except DeclarationError as error:
        raise CommandError(str(error), Exit.USAGE) from None
    return Exit(status)


def _run_many(paths: Sequence[str], settings: Settings, workers: int) -> int:
    """Runs several workers. They read the settings from their environment, so flags are passed there."""
    flags = {setting.env: settings.flags.get(setting.key) for setting in AGENT}
    given = {variable: value for variable, value in flags.items() if value is not None}
    return run_workers(paths, workers=workers, environment={**os.environ, **given})
