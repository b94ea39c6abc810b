"""`handrail admin setup`: creates and changes the streams and durables on the broker."""

from __future__ import annotations

import argparse
import asyncio
from datetime import timedelta

from handrail.cli.arguments import SETUP, Parsers, add_settings, days, settings_of
from handrail.cli.exit_codes import Exit
from handrail.cli.output import Output
from handrail.mesh import settings as table
from handrail.mesh.permissions import SETUP as USER
from handrail.mesh.setting_parsers import size
from handrail.mesh.settings import bus_settings
from handrail.mesh.streams.set_up import Wishes, set_up_broker


def fill(verbs: Parsers) -> None:
    """Adds the command to the parser of `handrail admin`."""
    parser = verbs.add_parser("setup", help="create and change the streams and durables")
    parser.description = (
        "Create missing streams and durables, upgrade those of an older release, and print each change. What somebody "
        "changed and Handrail needs otherwise is refused until --reset names it. Run it before the first start, and "
        "after each upgrade of Handrail."
    )
    parser.add_argument(
        "--max-bytes",
        action="append",
        default=[],
        type=_limit,
        metavar="STREAM=SIZE",
        help="limit a stream: 500MiB, 20GiB, or unlimited; may be repeated",
    )
    parser.add_argument(
        "--max-age",
        action="append",
        default=[],
        type=_age,
        metavar="STREAM=DURATION",
        help="how long QUARANTINE, AUDIT or KEY keeps a message: 90d, or unlimited; may be repeated",
    )
    parser.add_argument(
        "--reset",
        action="append",
        default=[],
        metavar="NAME",
        help="configure this stream or durable again as Handrail needs it; may be repeated",
    )
    add_settings(parser, SETUP)
    parser.set_defaults(run=_run)


def _limit(text: str) -> tuple[str, int]:
    stream, equals, limit = text.partition("=")
    if not stream or not equals:
        raise argparse.ArgumentTypeError(f'"{text}" is not a limit such as FLOW=20GiB')
    try:
        return stream, size(limit)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _age(text: str) -> tuple[str, timedelta]:
    stream, equals, age = text.partition("=")
    if not stream or not equals:
        raise argparse.ArgumentTypeError(f'"{text}" is not an age such as KEY=90d')
    return stream, timedelta() if age == "unlimited" else days(age)


def _run(arguments: argparse.Namespace) -> Exit:
    settings = settings_of(arguments)
    wishes = Wishes(
        replicas=settings.value(table.REPLICAS),
        max_bytes=dict(arguments.max_bytes),
        max_age=dict(arguments.max_age),
        reset=frozenset(arguments.reset),
    )
    output = Output("table")
    if not asyncio.run(set_up_broker(bus_settings(settings, USER), wishes, tell=output.text)):
        output.text("nothing to change")
    return Exit.OK
