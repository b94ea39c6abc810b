"""Every setting in one table: a flag, an environment variable and a default, in this order of precedence.

The help of the `handrail` command and `docs/settings.md` are generated from it.
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
from handrail.mesh.https import why_unsafe
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
    """A setting has an invalid value. The text names the setting, the source of the value and the valid values."""


@dataclass(frozen=True, slots=True)
class Setting(Generic[T_co]):
    """One row of the table. `default` is text in the form of the flag; `parse` raises ValueError.

    A setting without a flag is a secret: a flag would be visible in the process list.
    """

    flag: str
    env: str
    default: str
    help: str
    parse: Callable[[str], T_co]
    metavar: str = "TEXT"

    @property
    def key(self) -> str:
        """The key of the setting in a mapping of flags: `nats_user` for --nats-user."""
        return self.env.removeprefix("HANDRAIL_").lower()


@dataclass(frozen=True, slots=True)
class Settings:
    """Resolves values: from flags by key (None: not given), then the environment, then the defaults of the table."""

    flags: Mapping[str, str | None]
    environment: Mapping[str, str]

    @classmethod
    def of_process(cls, flags: Mapping[str, str | None] | None = None) -> Settings:
        """Settings from these flags and the environment of this process."""
        return cls(flags or {}, os.environ)

    def value(self, setting: Setting[T]) -> T:
        """The value of a setting. An empty variable counts as unset. Raises SettingError if the value is invalid."""
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
    """Parses a duration: `15s`, `500ms`, `2m`, `1.5h`."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f'"{text}" is not a duration such as 500ms, 15s, 2m or 1.5h')
    return float(found[1]) * _UNITS[found[2]]


def at_least(smallest: timedelta) -> Callable[[str], timedelta]:
    """A parser for durations of at least `smallest`."""

    def parse(text: str) -> timedelta:
        value = duration(text)
        if value < smallest:
            raise ValueError(f'"{text}" is less than {smallest.total_seconds():g} s')
        return value

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    """A parser that accepts one of these words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f'"{text}" is not one of {", ".join(words)}')
        return text

    return parse


def count(text: str) -> int:
    """Parses a whole number from 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError(f'"{text}" is not a whole number from 1')
    return int(text)


def switch(text: str) -> bool:
    """Parses `on` or `off`."""
    return one_of("on", "off")(text) == "on"


def listed(text: str) -> tuple[str, ...]:
    """Parses values separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def some_of(*words: str) -> Callable[[str], tuple[str, ...]]:
    """A parser that accepts one or several of these words, separated by commas."""

    def parse(text: str) -> tuple[str, ...]:
        found = listed(text)
        if not found:
            raise ValueError(f"at least one of {', '.join(words)} is needed")
        return tuple(one_of(*words)(each) for each in found)

    return parse


def pairs(*names: str) -> Callable[[str], dict[str, str]]:
    """A parser for `name=value` with these names, separated by commas."""

    def parse(text: str) -> dict[str, str]:
        found = {}
        for each in listed(text):
            name, equals, value = each.partition("=")
            if not equals or not value:
                raise ValueError(f'"{each}" is not a pair such as {names[0]}=VALUE')
            found[one_of(*names)(name)] = value
        return found

    return parse


def key_set(text: str) -> str:
    """Parses a file or an address that `https.ask` may ask; an empty text is neither."""
    why = why_unsafe(text) if "://" in text else ""
    if why:
        raise ValueError(f'"{text}" can\'t be asked for keys: {why}')
    return text


def provider(text: str) -> str:
    """Parses the address of an identity provider; an empty text is none."""
    why = why_unsafe(text) if text else ""
    if why:
        raise ValueError(f'"{text}" can\'t be asked: {why}')
    return text


def servers(text: str) -> tuple[str, ...]:
    """Parses the addresses of nats-servers; at least one."""
    found = listed(text)
    for each in found:
        if not re.fullmatch(r"(nats|tls|ws|wss)://\S+", each):
            raise ValueError(f'"{each}" is not an address such as nats://host:4222')
    if not found:
        raise ValueError("an address such as nats://host:4222 is needed")
    return found


def host_and_port(text: str) -> str:
    """Parses `host:port`."""
    host, colon, port = text.rpartition(":")
    if not host or not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'"{text}" is not an address such as 127.0.0.1:7070')
    return text


def replicas(text: str) -> int:
    """Parses a number of replicas: 1 or 3."""
    return int(one_of("1", "3")(text))


def file(text: str) -> Path | None:
    """Parses a path; None if the text is empty."""
    return Path(text).expanduser() if text else None


def files(text: str) -> tuple[Path, ...]:
    """Parses paths separated by commas."""
    return tuple(Path(part).expanduser() for part in listed(text))


NATS = Setting(
    "--nats",
    "HANDRAIL_NATS",
    "nats://127.0.0.1:4222",
    "addresses of nats-servers, separated by commas",
    servers,
    "URL[,URL]",
)
NATS_USER = Setting(
    "--nats-user",
    "HANDRAIL_NATS_USER",
    "",
    "user on the broker; by default the agent's name, or `coordinator`",
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
TOKEN = Setting("", "HANDRAIL_TOKEN", "", "bearer token of the caller", str)
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

OIDC_ISSUER = Setting(
    "--oidc-issuer",
    "HANDRAIL_OIDC_ISSUER",
    "",
    "the identity provider, such as https://id.example.com/realms/payments",
    provider,
    "URL",
)
OIDC_CA = Setting(
    "--oidc-ca",
    "HANDRAIL_OIDC_CA",
    "",
    "certificate authority of the provider, instead of the system's",
    file,
    "FILE",
)
OIDC_CLIENT_ID = Setting(
    "--oidc-client-id",
    "HANDRAIL_OIDC_CLIENT_ID",
    "handrail-cli",
    "the id under which the provider knows this command: a public client with the device flow",
    str,
)
OIDC_SCOPE = Setting(
    "--oidc-scope",
    "HANDRAIL_OIDC_SCOPE",
    "openid,offline_access",
    "scopes to ask for, separated by commas; offline_access asks for a refresh token",
    listed,
    "NAME[,NAME]",
)
OIDC_RESOURCE = Setting(
    "--oidc-resource",
    "HANDRAIL_OIDC_RESOURCE",
    "",
    "the API to ask a token for, where the provider wants it named (RFC 8707)",
    str,
    "URI",
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
    "files with public keys (PEM: Ed25519, P-256 or RSA) that may sign tokens, separated by commas",
    files,
    "FILE[,FILE]",
)
JWT_KEY_SET = Setting(
    "--jwt-key-set",
    "HANDRAIL_JWT_KEY_SET",
    "",
    "JSON Web Key Set of the identity provider: a file, or an https address",
    key_set,
    "FILE|URL",
)
JWT_KEY_SET_CA = Setting(
    "--jwt-key-set-ca",
    "HANDRAIL_JWT_KEY_SET_CA",
    "",
    "certificate authority of that address, instead of the system's",
    file,
    "FILE",
)
JWT_KEY_SET_REFRESH = Setting(
    "--jwt-key-set-refresh",
    "HANDRAIL_JWT_KEY_SET_REFRESH",
    "5m",
    "how often the key set is fetched again",
    at_least(timedelta(seconds=1)),
    "DURATION",
)
JWT_KEY_SET_COOLDOWN = Setting(
    "--jwt-key-set-cooldown",
    "HANDRAIL_JWT_KEY_SET_COOLDOWN",
    "10s",
    "the shortest time between two fetches, whatever keys tokens name",
    at_least(timedelta(milliseconds=100)),
    "DURATION",
)
JWT_KEY_SET_STALE_AFTER = Setting(
    "--jwt-key-set-stale-after",
    "HANDRAIL_JWT_KEY_SET_STALE_AFTER",
    "1h",
    "how long its keys count while it can't be fetched",
    at_least(timedelta(seconds=1)),
    "DURATION",
)
JWT_ISSUER = Setting("--jwt-issuer", "HANDRAIL_JWT_ISSUER", "handrail", "the `iss` of tokens", str, "TEXT")
JWT_AUDIENCE = Setting("--jwt-audience", "HANDRAIL_JWT_AUDIENCE", "handrail", "the `aud` of tokens", str, "TEXT")
JWT_ALGORITHMS = Setting(
    "--jwt-algorithms",
    "HANDRAIL_JWT_ALGORITHMS",
    "EdDSA,ES256,RS256",
    "algorithms that keys may have, separated by commas",
    some_of("EdDSA", "ES256", "RS256"),
    "NAME[,NAME]",
)
JWT_CLAIMS = Setting(
    "--jwt-claims",
    "HANDRAIL_JWT_CLAIMS",
    "subject=sub,roles=roles,grants=handrail,agent=agent",
    "which claims hold subject, roles, grants and agent; a name with dots is a path",
    pairs("subject", "roles", "grants", "agent"),
    "NAME=CLAIM[,…]",
)
JWT_REQUIRED_CLAIMS = Setting(
    "--jwt-required-claims",
    "HANDRAIL_JWT_REQUIRED_CLAIMS",
    "",
    "claims that tokens must have beside `iss`, `aud`, `exp` and the subject, separated by commas",
    listed,
    "CLAIM[,CLAIM]",
)
JWT_MAX_LIFETIME = Setting(
    "--jwt-max-lifetime",
    "HANDRAIL_JWT_MAX_LIFETIME",
    "24h",
    "the longest time that a token may be valid for",
    at_least(timedelta(minutes=1)),
    "DURATION",
)
JWT_REVOCATIONS = Setting(
    "--jwt-revocations",
    "HANDRAIL_JWT_REVOCATIONS",
    "",
    "file with revoked tokens; read again when it changes",
    file,
    "FILE",
)
REPLICAS = Setting(
    "--replicas", "HANDRAIL_REPLICAS", "1", "replicas of each stream: 1, or 3 in a cluster", replicas, "1|3"
)
LEASE_TTL = Setting(
    "--lease-ttl",
    "HANDRAIL_LEASE_TTL",
    "15s",
    "how long a lease lasts without renewal; below 15 s, a leader election on the broker can outlast it",
    at_least(timedelta(seconds=1)),
    "DURATION",
)
SWEEP_INTERVAL = Setting(
    "--sweep-interval",
    "HANDRAIL_SWEEP_INTERVAL",
    "60s",
    "how often new messages are scanned for missed flows",
    at_least(timedelta(milliseconds=100)),
    "DURATION",
)
SWEEP_EVERYTHING = Setting(
    "--sweep-everything",
    "HANDRAIL_SWEEP_EVERYTHING",
    "off",
    "let the first sweep check all flows, for use after a restore: on or off",
    switch,
    "on|off",
)
GRACE = Setting(
    "--grace", "HANDRAIL_GRACE", "10s", "how long work in progress may take after SIGTERM", duration, "DURATION"
)
REFLECTION = Setting("--reflection", "HANDRAIL_REFLECTION", "on", "serve gRPC reflection: on or off", switch, "on|off")
CHANNELZ = Setting(
    "--channelz", "HANDRAIL_CHANNELZ", "on", "serve gRPC channelz to operators: on or off", switch, "on|off"
)

WORKERS = Setting(
    "--workers", "HANDRAIL_WORKERS", "1", "number of processes that share the agent's work", count, "NUMBER"
)
LOG_LEVEL = Setting(
    "--log-level",
    "HANDRAIL_LOG_LEVEL",
    "info",
    "debug, info, warning or error",
    one_of("debug", "info", "warning", "error"),
    "LEVEL",
)

TOKENS: tuple[Setting[object], ...] = (
    JWT_PUBLIC_KEYS,
    JWT_KEY_SET,
    JWT_KEY_SET_CA,
    JWT_KEY_SET_REFRESH,
    JWT_KEY_SET_COOLDOWN,
    JWT_KEY_SET_STALE_AFTER,
    JWT_ISSUER,
    JWT_AUDIENCE,
    JWT_ALGORITHMS,
    JWT_CLAIMS,
    JWT_REQUIRED_CLAIMS,
    JWT_MAX_LIFETIME,
    JWT_REVOCATIONS,
)
"""Which tokens a coordinator accepts."""

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
"""The address of the broker, and the credentials to connect with."""


def bus_settings(settings: Settings, name: str) -> BusSettings:
    """How `name` (an agent, `coordinator`, …) connects to the broker. Raises SettingError for unreadable passwords."""
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
    """The content of a file with a password or token, without the line end. Raises SettingError if unreadable."""
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingError(f"{path} can't be read: {reason}") from None
