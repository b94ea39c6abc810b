"""`handrail admin enable-retention`: lets a FLOW that an earlier release created be purged."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from pathlib import Path

from handrail.cli.arguments import SETUP, Parsers, add_settings, settings_of
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.output import Output
from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.permissions import ADMIN as USER
from handrail.mesh.settings import REPLICAS, bus_settings
from handrail.mesh.streams.enable_retention import enable_retention


def fill(verbs: Parsers) -> None:
    """Adds the command to the parser of `handrail admin`."""
    parser = verbs.add_parser("enable-retention", help="let FLOW be purged")
    parser.description = (
        "Let a FLOW that an earlier release created be purged: write it to a snapshot, delete it, and restore it with "
        "another configuration. Stop agents, coordinators, visibility and readers first. If it is interrupted, run it "
        "again with the same folder. It needs the broker's user admin."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder for the snapshot, which must have room")
    add_settings(parser, [setting for setting in SETUP if setting is not REPLICAS])
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    output = Output("table")
    try:
        steps = asyncio.run(_enable(bus_settings(settings_of(arguments), USER), arguments.folder, output.text))
    except OSError as error:
        raise CommandError(f"the snapshot can't be kept in {arguments.folder}: {error.strerror}") from None
    if not steps:
        output.text("nothing to change: FLOW can be purged")
    return Exit.OK


async def _enable(broker: BusSettings, folder: Path, tell: Callable[[str], None]) -> int:
    steps = 0
    async with await NatsBus.connect(broker) as bus:
        async for text in enable_retention(bus, folder):
            tell(text)
            steps += 1
    return steps
