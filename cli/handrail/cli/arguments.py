"""The settings as command-line arguments, and their table for `docs/settings.md`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeAlias

from handrail.mesh import settings as table
from handrail.mesh.setting import Setting, Settings
from handrail.mesh.setting_parsers import duration

Parsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""The place where a command adds its parser."""

TRANSPORT = (table.ADDRESS, table.TLS, table.CA, table.CLIENT_CERT, table.CLIENT_KEY)
CALLER = (table.CONTEXT, *TRANSPORT, table.TOKEN, table.TOKEN_FILE, table.TIMEOUT, table.OUTPUT)
LOGIN = (
    table.OIDC_ISSUER,
    table.OIDC_CLIENT_ID,
    table.OIDC_SCOPE,
    table.OIDC_RESOURCE,
    table.OIDC_CA,
)
COORDINATOR = (
    table.LISTEN,
    table.TLS_CERT,
    table.TLS_KEY,
    table.TLS_CLIENT_CA,
    *table.TOKENS,
    *table.BROKER,
    table.REPLICAS,
    table.LEASE_TTL,
    table.SWEEP_INTERVAL,
    table.SWEEP_EVERYTHING,
    table.AGENT_MESSAGES,
    table.AGENT_BYTES,
    table.GRACE,
    table.CHECK_WORKERS,
    table.CHECK_TIME,
    table.REFLECTION,
    table.REFLECTION_CONTRACTS,
    table.CHANNELZ,
    table.MAX_CONNECTIONS,
    table.MAX_CALLS,
    table.MAX_CALLS_PER_CALLER,
    table.MAX_STREAMS,
    table.MAX_STREAMS_PER_CALLER,
    table.MESSAGE_TIMEOUT,
    table.VISIBILITY,
    table.VISIBILITY_CA,
    table.VISIBILITY_SECRET_FILE,
    table.LOG_LEVEL,
)
SETUP = (*table.BROKER, table.REPLICAS)
VISIBILITY = (
    table.DATABASE,
    table.ARCHIVE,
    table.FOLD_PROCESSES,
    table.VISIBILITY_LISTEN,
    table.VISIBILITY_SECRET_FILE,
    table.TLS_CERT,
    table.TLS_KEY,
    table.RETENTION,
    table.RETENTION_NKEY_FILE,
    table.PURGE_RATE,
    *table.BROKER,
    table.LOG_LEVEL,
)
CONSOLE = (
    table.CONSOLE_LISTEN,
    table.ALLOWED_HOST,
    table.TRUSTED_PROXY,
    table.TLS_CERT,
    table.TLS_KEY,
    *TRANSPORT,
    table.TIMEOUT,
    table.OIDC_ISSUER,
    table.OIDC_NAME,
    table.CONSOLE_CLIENT_ID,
    table.CONSOLE_CLIENT_SECRET_FILE,
    table.OIDC_SCOPE,
    table.OIDC_RESOURCE,
    table.OIDC_CA,
    table.PASTED_TOKENS,
    table.IDENTITIES,
    table.TRACE_LINK,
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
    Group("Logging in", "For `handrail login` ([identity](identity.md)), besides `--address`.", LOGIN),
    Group("Running a coordinator", "For `handrail coordinator`.", COORDINATOR),
    Group("Setting up the broker", "For `handrail admin setup`.", SETUP),
    Group("Following flows", "For `handrail visibility`.", VISIBILITY),
    Group("Running the console", "For `handrail console` ([console](console.md)).", CONSOLE),
    Group("Running agents", "For `handrail agent run`, and for `agent.run()` in your own program.", AGENT),
)


def add_settings(parser: argparse.ArgumentParser, settings: Iterable[Setting[object]]) -> None:
    """Adds a flag for each setting that has one; its help names the variable and the default."""
    group = parser.add_argument_group("settings")
    for setting in settings:
        if setting.flag:
            group.add_argument(setting.flag, dest=setting.key, metavar=setting.metavar, help=_help(setting))


def add_flow_type(parser: argparse.ArgumentParser, text: str, *, default: str = "") -> None:
    """Adds the flag that names a flow type, and `--type`, its name in earlier releases."""
    parser.add_argument("--flow-type", default=default, metavar="TYPE", help=text)
    parser.add_argument("--type", dest="flow_type", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def add_request_id(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that repeats a request under the same id."""
    parser.add_argument(
        "--request-id",
        default="",
        metavar="UUID",
        help="id of the request (idempotency key): repeat it to get the same answer again [default: a new one]",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """Adds the `--output` flag with its standard forms."""
    add_settings(parser, [table.OUTPUT])


def add_form(parser: argparse.ArgumentParser, *forms: str) -> None:
    """Adds an `--output` flag with `text`, `json` and the given forms."""
    parser.add_argument("--output", choices=("text", "json", *forms), help="form of the report [default text]")


def form_of(arguments: argparse.Namespace) -> str:
    """Returns the form from `add_form` or the environment: text, json, or one of the command's own."""
    asked: str | None = arguments.output
    return asked or ("json" if settings_of(argparse.Namespace()).value(table.OUTPUT) == "json" else "text")


def positive(text: str) -> int:
    """Parses a whole number from 1, for argparse."""
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f'"{text}" must be a whole number from 1')
    return int(text)


def moment(text: str) -> datetime:
    """Parses a time, UTC unless it says otherwise, for argparse."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'"{text}" is not a time such as 2026-11-22T21:00:00Z') from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def days(text: str) -> timedelta:
    """Parses a duration that may be counted in days, for argparse."""
    found = re.fullmatch(r"([0-9]{1,6})d", text)
    try:
        return timedelta(days=int(found[1])) if found else duration(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'"{text}" is not a duration such as 30m, 24h or 7d') from None


def since(text: str) -> datetime:
    """Parses a time, or how long ago it was, for argparse."""
    try:
        return datetime.now(UTC) - days(text)
    except OverflowError:
        raise argparse.ArgumentTypeError(f'"{text}" is before the first date that can be represented') from None
    except argparse.ArgumentTypeError:
        pass
    try:
        return moment(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f'"{text}" is neither a duration such as 30m, 24h or 7d nor a time such as 2026-11-22T21:00:00Z'
        ) from None


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Returns the settings of a command line, over this process's environment and, if the command calls a coordinator,
    over the user's context.
    """
    settings = Settings.of_process(vars(arguments))
    if table.CONTEXT.key not in settings.flags:
        return settings
    from handrail.cli.contexts import with_context

    return with_context(settings)


def reference() -> str:
    """Returns the table of settings in Markdown: the content of `docs/settings.md`."""
    lines = [
        "# Settings",
        "",
        "A flag overrides its environment variable, and the variable overrides the default. For commands that call a",
        "coordinator, the [context](command.md#contexts) stands between variable and default. An empty variable is not",
        "set. Write durations as `500ms`, `15s`, `2m`, `1.5h`. Secrets have no flag, because flags are visible in the",
        "list of processes.",
        "",
        "This file is generated from `mesh/handrail/mesh/settings.py`: `python -m handrail.cli.arguments`.",
    ]
    for group in GROUPS:
        lines += ["", f"## {group.title}", "", group.intro, "", "| flag | variable | default | meaning |"]
        lines += ["| --- | --- | --- | --- |", *map(_row, group.settings)]
    lines += ["", _TRACING, ""]
    return "\n".join(lines)


_TRACING = """## Tracing

The standard variables of OpenTelemetry configure traces, above all `OTEL_EXPORTER_OTLP_ENDPOINT`. Without them nothing
is recorded. Counters go to `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`, or with `OTEL_METRICS_EXPORTER=otlp` to the endpoint
of the traces. The protocol is gRPC, which needs the extra `handrail[otlp-grpc]`. HTTP needs none: set
`OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf`."""


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
