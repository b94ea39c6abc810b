"""Every setting in one table: a flag, an environment variable and a default, in this order of precedence.

The help of the `handrail` command and `docs/settings.md` are made from it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Generic, TypeVar

from handrail.mesh.bus.bus_settings import BusSettings
from handrail.mesh.permissions import inbox_prefix

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
}


class SettingError(ValueError):
    """A setting has a value that can't be used; the text names the setting, where it came from and what it takes."""


@dataclass(frozen=True, slots=True)
class Setting(Generic[T_co]):
    """One row of the table. `default` is text as the flag would have it; `parse` raises ValueError.

    A setting without a flag is a secret: a flag would show in the list of processes.
    """

    flag: str
    env: str
    default: str
    help: str
    parse: Callable[[str], T_co]
    metavar: str = "TEXT"

    @property
    def key(self) -> str:
        """What names the setting in a mapping of flags: `nats_user` for --nats-user."""
        return self.env.removeprefix("HANDRAIL_").lower()


@dataclass(frozen=True, slots=True)
class Settings:
    """Where values come from: flags by key (None: not given), then the environment, then the table's defaults."""

    flags: Mapping[str, str | None]
    environment: Mapping[str, str]

    @classmethod
    def of_process(cls, flags: Mapping[str, str | None] | None = None) -> Settings:
        """Flags over this process's environment."""
        return cls(flags or {}, os.environ)

    def value(self, setting: Setting[T]) -> T:
        """The value of a setting; SettingError where it can't be used. An empty variable counts as not set."""
        text, source = self.flags.get(setting.key), setting.flag
        if text is None:
            text, source = self.environment.get(setting.env) or None, setting.env
        if text is None:
            text, source = setting.default, "the default"
        try:
            return setting.parse(text)
        except ValueError as error:
            raise SettingError(f"{source}: {error}") from None


def duration(text: str) -> timedelta:
    """`15s`, `500ms`, `2m`, `1.5h`."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f'"{text}" is no duration such as 500ms, 15s, 2m or 1.5h')
    return float(found[1]) * _UNITS[found[2]]


def at_least(smallest: timedelta) -> Callable[[str], timedelta]:
    """Durations of at least this."""

    def parse(text: str) -> timedelta:
        value = duration(text)
        if value < smallest:
            raise ValueError(f'"{text}" is less than {smallest.total_seconds():g} s')
        return value

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    """One of some words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f'"{text}" is none of {", ".join(words)}')
        return text

    return parse


def count(text: str) -> int:
    """A whole number from 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError(f'"{text}" is no whole number from 1')
    return int(text)


def switch(text: str) -> bool:
    """`on` or `off`."""
    return one_of("on", "off")(text) == "on"


def listed(text: str) -> tuple[str, ...]:
    """Values separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def servers(text: str) -> tuple[str, ...]:
    """Addresses of nats-servers; at least one."""
    found = listed(text)
    for each in found:
        if not re.fullmatch(r"(nats|tls|ws|wss)://\S+", each):
            raise ValueError(f'"{each}" is no address such as nats://host:4222')
    if not found:
        raise ValueError("an address such as nats://host:4222 is needed")
    return found


def host_and_port(text: str) -> str:
    """`host:port`."""
    host, colon, port = text.rpartition(":")
    if not host or not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'"{text}" is no address such as 127.0.0.1:7070')
    return text


def replicas(text: str) -> int:
    """1 or 3."""
    return int(one_of("1", "3")(text))


def file(text: str) -> Path | None:
    """A path; none where it is empty."""
    return Path(text).expanduser() if text else None


def files(text: str) -> tuple[Path, ...]:
    """Paths separated by commas."""
    return tuple(Path(part).expanduser() for part in listed(text))


NATS = Setting(
    "--nats", "HANDRAIL_NATS", "nats://127.0.0.1:4222", "nats-servers, separated by commas", servers, "URL[,URL]"
)
NATS_USER = Setting(
    "--nats-user",
    "HANDRAIL_NATS_USER",
    "",
    "user on the broker; where missing, the agent's name, or `coordinator`",
    str,
    "NAME",
)
NATS_PASSWORD = Setting("", "HANDRAIL_NATS_PASSWORD", "", "password on the broker", str)
NATS_PASSWORD_FILE = Setting(
    "--nats-password-file",
    "HANDRAIL_NATS_PASSWORD_FILE",
    "",
    "file with the password, instead of HANDRAIL_NATS_PASSWORD",
    file,
    "FILE",
)
NATS_NKEY_FILE = Setting(
    "--nats-nkey-file", "HANDRAIL_NATS_NKEY_FILE", "", "file with an nkey seed, instead of a password", file, "FILE"
)
NATS_CA = Setting(
    "--nats-ca", "HANDRAIL_NATS_CA", "", "certificate authority of the broker; switches TLS on", file, "FILE"
)
NATS_CERT = Setting("--nats-cert", "HANDRAIL_NATS_CERT", "", "client certificate for the broker", file, "FILE")
NATS_KEY = Setting("--nats-key", "HANDRAIL_NATS_KEY", "", "key of the client certificate", file, "FILE")

ADDRESS = Setting(
    "--address",
    "HANDRAIL_ADDRESS",
    "127.0.0.1:7070",
    "gRPC address of the coordinator to call",
    host_and_port,
    "HOST:PORT",
)
TOKEN = Setting("", "HANDRAIL_TOKEN", "", "bearer token of whoever calls", str)
TOKEN_FILE = Setting(
    "--token-file", "HANDRAIL_TOKEN_FILE", "", "file with the bearer token, instead of HANDRAIL_TOKEN", file, "FILE"
)
TIMEOUT = Setting(
    "--timeout",
    "HANDRAIL_TIMEOUT",
    "10s",
    "how long a call may take",
    at_least(timedelta(milliseconds=100)),
    "DURATION",
)
OUTPUT = Setting(
    "--output", "HANDRAIL_OUTPUT", "table", "table for people, json for programs", one_of("table", "json"), "table|json"
)

LISTEN = Setting(
    "--listen",
    "HANDRAIL_LISTEN",
    "127.0.0.1:7070",
    "gRPC address to serve; port 0 takes a free one",
    host_and_port,
    "HOST:PORT",
)
JWT_PUBLIC_KEYS = Setting(
    "--jwt-public-keys",
    "HANDRAIL_JWT_PUBLIC_KEYS",
    "",
    "files with the Ed25519 public keys (PEM) of whoever may sign tokens, separated by commas",
    files,
    "FILE[,FILE]",
)
REPLICAS = Setting(
    "--replicas", "HANDRAIL_REPLICAS", "1", "replicas of each stream: 1, or 3 in a cluster", replicas, "1|3"
)
LEASE_TTL = Setting(
    "--lease-ttl",
    "HANDRAIL_LEASE_TTL",
    "15s",
    "how long a lease lasts without renewal; below 15 s an election on the broker outlasts it",
    at_least(timedelta(seconds=1)),
    "DURATION",
)
SWEEP_INTERVAL = Setting(
    "--sweep-interval",
    "HANDRAIL_SWEEP_INTERVAL",
    "60s",
    "how often what is new is looked through for flows that were missed",
    at_least(timedelta(milliseconds=100)),
    "DURATION",
)
SWEEP_EVERYTHING = Setting(
    "--sweep-everything",
    "HANDRAIL_SWEEP_EVERYTHING",
    "off",
    "have the first sweep look at all flows, as after a restore: on or off",
    switch,
    "on|off",
)
GRACE = Setting(
    "--grace", "HANDRAIL_GRACE", "10s", "how long work under way may take after SIGTERM", duration, "DURATION"
)
REFLECTION = Setting("--reflection", "HANDRAIL_REFLECTION", "on", "serve gRPC reflection: on or off", switch, "on|off")
CHANNELZ = Setting(
    "--channelz", "HANDRAIL_CHANNELZ", "on", "serve gRPC channelz to operators: on or off", switch, "on|off"
)

WORKERS = Setting("--workers", "HANDRAIL_WORKERS", "1", "processes that share the agent's work", count, "NUMBER")
LOG_LEVEL = Setting(
    "--log-level",
    "HANDRAIL_LOG_LEVEL",
    "info",
    "debug, info, warning or error",
    one_of("debug", "info", "warning", "error"),
    "LEVEL",
)

BROKER: tuple[Setting[object], ...] = (
    NATS,
    NATS_USER,
    NATS_PASSWORD,
    NATS_PASSWORD_FILE,
    NATS_NKEY_FILE,
    NATS_CA,
    NATS_CERT,
    NATS_KEY,
)
"""How to reach the broker, and as whom."""


def bus_settings(settings: Settings, name: str) -> BusSettings:
    """How `name` (an agent, `coordinator`, …) connects to the broker; SettingError where a password can't be read."""
    password = settings.value(NATS_PASSWORD)
    password_file = settings.value(NATS_PASSWORD_FILE)
    if not password and password_file is not None:
        password = secret(password_file)
    user = settings.value(NATS_USER) or name
    return BusSettings(
        servers=settings.value(NATS),
        name=name,
        user=user if password else "",
        password=password,
        nkey_seed_file=settings.value(NATS_NKEY_FILE),
        tls_ca=settings.value(NATS_CA),
        tls_cert=settings.value(NATS_CERT),
        tls_key=settings.value(NATS_KEY),
        # The broker's permissions reserve an inbox for each user.
        inbox_prefix=inbox_prefix(user),
    )


def secret(path: Path) -> str:
    """What a file with a password or a token holds, without the line's end; SettingError where it can't be read."""
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingError(f"{path} can't be read: {reason}") from None
