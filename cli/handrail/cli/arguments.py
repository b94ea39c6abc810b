"""Settings as arguments of the command, and their table for `docs/settings.md`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeAlias

from handrail.mesh import settings as table
from handrail.mesh.settings import Setting, Settings

Parsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a command adds its parser."""

CALLER = (table.ADDRESS, table.TOKEN, table.TOKEN_FILE, table.TIMEOUT, table.OUTPUT)
COORDINATOR = (
    table.LISTEN,
    table.JWT_PUBLIC_KEYS,
    *table.BROKER,
    table.REPLICAS,
    table.LEASE_TTL,
    table.SWEEP_INTERVAL,
    table.SWEEP_EVERYTHING,
    table.GRACE,
    table.REFLECTION,
    table.CHANNELZ,
    table.LOG_LEVEL,
)
AGENT = (table.WORKERS, *table.BROKER, table.LOG_LEVEL)


class Group(NamedTuple):
    """Settings that belong together in the documentation."""

    title: str
    intro: str
    settings: Sequence[Setting[object]]


GROUPS = (
    Group("Calling a coordinator", "For every command that asks a coordinator over gRPC.", CALLER),
    Group("Running a coordinator", "For `handrail coordinator`.", COORDINATOR),
    Group("Running agents", "For `handrail agent run`, and for `agent.run()` in a program of one's own.", AGENT),
)


def add_settings(parser: argparse.ArgumentParser, settings: Iterable[Setting[object]]) -> None:
    """Give the parser a flag for each setting that has one; the help names variable and default."""
    group = parser.add_argument_group("settings")
    for setting in settings:
        if setting.flag:
            group.add_argument(setting.flag, dest=setting.key, metavar=setting.metavar, help=_help(setting))


def add_request_id(parser: argparse.ArgumentParser) -> None:
    """Give the parser the flag that asks for the very same thing again."""
    parser.add_argument(
        "--request-id",
        default="",
        metavar="UUID",
        help="id of what is asked for: asked again with the same id, it is answered and not done twice; else a new one",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """Give the parser --output alone."""
    add_settings(parser, [table.OUTPUT])


def add_form(parser: argparse.ArgumentParser, *forms: str) -> None:
    """Give the parser an --output of its own, with `text` and `json` and these forms."""
    parser.add_argument("--output", choices=("text", "json", *forms), help="form of the report [default text]")


def form_of(arguments: argparse.Namespace) -> str:
    """The form that was asked for with `add_form`, or in the environment: text, json, or one of the command's own."""
    asked: str | None = arguments.output
    return asked or ("json" if settings_of(argparse.Namespace()).value(table.OUTPUT) == "json" else "text")


def positive(text: str) -> int:
    """A whole number from 1, for argparse."""
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f'"{text}" is no whole number from 1')
    return int(text)


def moment(text: str) -> datetime:
    """A time, in UTC where it does not say, for argparse."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'"{text}" is no time such as 2026-11-22T21:00:00Z') from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def since(text: str) -> datetime:
    """A time, or how long ago it was, for argparse."""
    try:
        days = re.fullmatch(r"([0-9]{1,6})d", text)
        return datetime.now(UTC) - (timedelta(days=int(days[1])) if days else table.duration(text))
    except OverflowError:
        raise argparse.ArgumentTypeError(f'"{text}" is longer ago than calendars go back') from None
    except ValueError:
        pass
    try:
        return moment(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f'"{text}" is neither a duration such as 30m, 24h or 7d nor a time such as 2026-11-22T21:00:00Z'
        ) from None


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The settings of a command line, over this process's environment."""
    return Settings.of_process(vars(arguments))


def reference() -> str:
    """The table of settings in Markdown: what `docs/settings.md` holds."""
    lines = [
        "# Settings",
        "",
        "A flag comes before its environment variable, and that before the default. An empty variable counts as not",
        "set. Durations are written `500ms`, `15s`, `2m`, `1.5h`. Secrets have no flag: it would show in the list of",
        "processes.",
        "",
        "This file is made from the table in `mesh/handrail/mesh/settings.py`: `python -m handrail.cli.arguments`.",
    ]
    for group in GROUPS:
        lines += ["", f"## {group.title}", "", group.intro, "", "| flag | variable | default | what |"]
        lines += ["| --- | --- | --- | --- |", *map(_row, group.settings)]
    lines += ["", _TRACING, ""]
    return "\n".join(lines)


_TRACING = """## Tracing

Traces go where the standard variables of OpenTelemetry say, `OTEL_EXPORTER_OTLP_ENDPOINT` first of all; without one of
them nothing is recorded. Counters go to `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`, or where the traces go with
`OTEL_METRICS_EXPORTER=otlp`."""


def _row(setting: Setting[object]) -> str:
    flag = f"`{setting.flag} {_escaped(setting.metavar)}`" if setting.flag else ""
    default = f"`{setting.default}`" if setting.default else ""
    return f"| {flag} | `{setting.env}` | {default} | {_escaped(setting.help)} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _help(setting: Setting[object]) -> str:
    default = f", default {setting.default}" if setting.default else ""
    return f"{setting.help} [{setting.env}{default}]".replace("%", "%%")


if __name__ == "__main__":
    print(reference(), end="")
