"""`handrail visibility`: keeps the index of flows."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from handrail.cli.arguments import VISIBILITY, add_settings, settings_of
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.output import Output
from handrail.cli.tls_files import tls_files
from handrail.mesh import event_loop
from handrail.mesh import settings as table
from handrail.mesh.permissions import VISIBILITY as USER
from handrail.mesh.setting import Settings
from handrail.mesh.settings import bus_settings, retention_bus_settings
from handrail.mesh.telemetry import logs

if TYPE_CHECKING:
    from handrail.visibility.retention.process import RetentionSettings
    from handrail.visibility.serve.server import ServeSettings


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.description = (
        "Follow all flows, archive their messages, keep an index of them in a database, and serve it to coordinators, "
        "until SIGTERM or Ctrl-C. "
        f"Run one for each database. {table.DATABASE.env} names it [default {table.DATABASE.default}]."
    )
    add_settings(parser, VISIBILITY)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    from handrail.visibility.follow.load import Load
    from handrail.visibility.main import run_visibility

    settings = settings_of(arguments)
    logs.configure(settings.value(table.LOG_LEVEL).upper())
    processes = settings.value(table.FOLD_PROCESSES)
    archive = settings.value(table.ARCHIVE)
    try:
        event_loop.run(
            run_visibility(
                bus_settings(settings, USER),
                settings.value(table.DATABASE),
                archive,
                serve=_served(settings),
                on_ready=lambda port: Output("table").text(f"serving the index on port {port}"),
                retention=_retained(settings),
                load=Load() if processes is None else Load(processes=processes),
            )
        )
    except OSError as error:
        opened = f"the archive in {archive} can't be opened: {error.strerror}"
        raise CommandError(opened if error.strerror else str(error)) from None
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE) from None
    return Exit.OK


def _served(settings: Settings) -> ServeSettings | None:
    """Where the index is served; None if nowhere."""
    address, secret = settings.value(table.VISIBILITY_LISTEN), settings.value(table.VISIBILITY_SECRET_FILE)
    if address is None:
        return None
    if secret is None:
        raise CommandError(f"{table.VISIBILITY_LISTEN.flag} needs {table.VISIBILITY_SECRET_FILE.flag}", Exit.USAGE)
    from handrail.visibility.serve.server import ServeSettings

    return ServeSettings(address=address, secret=secret, tls=tls_files(settings))


def _retained(settings: Settings) -> RetentionSettings:
    """Which finished flows leave FLOW, and who purges them."""
    from handrail.visibility.retention.policy import Policy
    from handrail.visibility.retention.process import RetentionSettings
    from handrail.visibility.retention.retention import Settings as Limits

    seed = settings.value(table.RETENTION_NKEY_FILE)
    if seed is None:
        return RetentionSettings()
    if settings.value(table.ARCHIVE) is None:
        raise CommandError(f"{table.RETENTION_NKEY_FILE.flag} needs {table.ARCHIVE.flag}", Exit.USAGE)
    limits = Limits(Policy(settings.value(table.RETENTION)), settings.value(table.PURGE_RATE))
    return RetentionSettings(retention_bus_settings(settings, seed), limits)
