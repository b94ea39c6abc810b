"""`handrail admin reader`: creates the durable of a reader on the broker."""

from __future__ import annotations

import argparse
import asyncio

from handrail.cli.arguments import SETUP, Parsers, add_settings, settings_of
from handrail.cli.exit_codes import Exit
from handrail.cli.output import Output
from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.permissions import SETUP as USER
from handrail.mesh.permissions import Reader
from handrail.mesh.settings import REPLICAS, bus_settings
from handrail.mesh.streams.readers import ensure_reader


def fill(verbs: Parsers) -> None:
    """Adds the command to the parser of `handrail admin`."""
    parser = verbs.add_parser("reader", help="create the durable of a reader")
    parser.description = (
        "Create the durable consumer through which a reader gets the messages of its flow types from any sequence on, "
        "or give it other flow types. Run it after `handrail nats-permissions --reader`, which creates its user, and "
        "again after FLOW was restored."
    )
    parser.add_argument("name", metavar="NAME", help="the reader")
    parser.add_argument(
        "--flow-type",
        action="append",
        required=True,
        metavar="TYPE",
        dest="flow_types",
        help="a flow type that it may read; may be repeated",
    )
    add_settings(parser, [setting for setting in SETUP if setting is not REPLICAS])
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    reader = Reader(arguments.name, tuple(dict.fromkeys(arguments.flow_types)))
    done = asyncio.run(_ensure(bus_settings(settings_of(arguments), USER), reader))
    Output("table").text(done or "nothing to change")
    return Exit.OK


async def _ensure(broker: BusSettings, reader: Reader) -> str:
    async with await NatsBus.connect(broker) as bus:
        return await ensure_reader(bus, reader)
