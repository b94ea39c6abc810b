"""`handrail archive erase`: erases a flow from FLOW, the archive, the index and quarantine."""

from __future__ import annotations

import argparse
import asyncio
import getpass
from pathlib import Path

from handrail.cli.arguments import SETUP, Parsers, add_settings, settings_of
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.flow_names import exact_flow_id
from handrail.cli.output import Output
from handrail.mesh import settings as table
from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.permissions import ADMIN as USER
from handrail.mesh.settings import bus_settings
from handrail.mesh.wire.ids import flow_id_from_key


def fill(commands: Parsers) -> None:
    """Adds the command to the parser of `handrail archive`."""
    parser = commands.add_parser("erase", help="erase a flow for good")
    parser.description = (
        "Erase a flow that is over: from FLOW, from the archive, from the index (HANDRAIL_DATABASE) and from "
        "quarantine. Its status stays, and a record in AUDIT. Stop handrail visibility first. If it is interrupted, "
        "run it again. It needs the broker's user admin."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the archive's folder")
    parser.add_argument("flow_type", metavar="TYPE", help="the flow's type")
    parser.add_argument("flow", metavar="FLOW", help="the flow's id, or its business key")
    parser.add_argument(
        "--by", default=getpass.getuser(), metavar="NAME", help="who erases it, for the record [default: this user]"
    )
    add_settings(parser, [setting for setting in SETUP if setting is not table.REPLICAS])
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    settings = settings_of(arguments)
    if not arguments.folder.is_dir():
        raise CommandError(f"there is no folder {arguments.folder}", Exit.NOT_FOUND)
    asyncio.run(_erase(bus_settings(settings, USER), settings.value(table.DATABASE), arguments))
    return Exit.OK


async def _erase(broker: BusSettings, database: str, arguments: argparse.Namespace) -> None:
    from handrail.visibility.archive.folder import LockedFolder
    from handrail.visibility.index.database import open_engine
    from handrail.visibility.retention.erasure import Erasure

    output, engine = Output("table"), open_engine(database)
    try:
        with LockedFolder(arguments.folder) as folder:
            async with await NatsBus.connect(broker) as bus:
                erasure = Erasure(bus, folder, engine, by=arguments.by)
                flow_id = exact_flow_id(arguments.flow) or flow_id_from_key(arguments.flow_type, arguments.flow)
                async for text in erasure.erase(arguments.flow_type, flow_id):
                    output.text(text)
    finally:
        engine.dispose()
