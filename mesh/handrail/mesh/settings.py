"""Every setting in one table. The help of the `handrail` command and `docs/settings.md` are generated from it.

What connects to the broker is loaded when it is asked for: most commands don't.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from handrail.mesh.setting import Setting, Settings, secret
from handrail.mesh.setting_parsers import (
    age,
    at_least,
    count,
    duration,
    file,
    files,
    host_and_port,
    key_set,
    listed,
    networks,
    number,
    one_of,
    optional,
    pairs,
    provider,
    replicas,
    servers,
    some_of,
    switch,
    trace_link,
)

if TYPE_CHECKING:
    from handrail.mesh.bus.bus_settings import BusSettings

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
    "user on the broker; by default the agent's name, or `coordinator`, `setup` or `visibility`",
    str,
    "NAME",
)
NATS_PASSWORD = Setting("", "HANDRAIL_NATS_PASSWORD", "", "password on the broker", str)
NATS_PASSWORD_FILE = Setting(
    "--nats-password-file",
    "HANDRAIL_NATS_PASSWORD_FILE",
    "",
    "file with the password, instead of HANDRAIL_NATS_PASSWORD; {agent} stands for the agent's name",
    file,
    "FILE",
)
NATS_NKEY_FILE = Setting(
    "--nats-nkey-file",
    "HANDRAIL_NATS_NKEY_FILE",
    "",
    "file with an nkey seed, instead of a password; {agent} stands for the agent's name",
    file,
    "FILE",
)
NATS_CA = Setting(
    "--nats-ca",
    "HANDRAIL_NATS_CA",
    "",
    "certificate authority of the broker; switches TLS on, as tls://… does",
    file,
    "FILE",
)
NATS_CERT = Setting("--nats-cert", "HANDRAIL_NATS_CERT", "", "client certificate for the broker", file, "FILE")
NATS_KEY = Setting("--nats-key", "HANDRAIL_NATS_KEY", "", "key of the client certificate", file, "FILE")

CONTEXT = Setting(
    "--context",
    "HANDRAIL_CONTEXT",
    "",
    "name under which `handrail context set` keeps address, TLS and token file [default: the one in use]",
    str,
    "NAME",
)
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
TLS = Setting(
    "--tls",
    "HANDRAIL_TLS",
    "auto",
    "speak TLS: on, off, or auto: with --ca or --client-cert; without, no token is sent to another machine",
    one_of("auto", "on", "off"),
    "auto|on|off",
)
CA = Setting(
    "--ca",
    "HANDRAIL_CA",
    "",
    "certificate authority of the coordinator; with --tls on and without it, the public ones",
    file,
    "FILE",
)
CLIENT_CERT = Setting(
    "--client-cert", "HANDRAIL_CLIENT_CERT", "", "client certificate for the coordinator", file, "FILE"
)
CLIENT_KEY = Setting("--client-key", "HANDRAIL_CLIENT_KEY", "", "key of the client certificate", file, "FILE")
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

CONSOLE_LISTEN = Setting(
    "--console-listen",
    "HANDRAIL_CONSOLE_LISTEN",
    "127.0.0.1:7080",
    "HTTP address to serve; port 0 takes a free one. Beyond this machine it needs --tls-cert and --allowed-host",
    host_and_port,
    "HOST:PORT",
)
ALLOWED_HOST = Setting(
    "--allowed-host",
    "HANDRAIL_ALLOWED_HOST",
    "",
    "host names by which browsers may address the console, besides those of this machine, separated by commas",
    listed,
    "NAME[,NAME]",
)
TRUSTED_PROXY = Setting(
    "--trusted-proxy",
    "HANDRAIL_TRUSTED_PROXY",
    "",
    "addresses or networks of proxies before the console, separated by commas: only their Forwarded or X-Forwarded-For "
    "says whose request it is",
    networks,
    "ADDRESS[,ADDRESS]",
)
IDENTITIES = Setting(
    "--identities",
    "HANDRAIL_IDENTITIES",
    "",
    "folder with a token in each file, for development: whoever opens the console may act as any of them",
    file,
    "FOLDER",
)

TRACE_LINK = Setting(
    "--trace-link",
    "HANDRAIL_TRACE_LINK",
    "",
    "address of a trace in your tracing system, in which {trace} stands for its id",
    trace_link,
    "URL",
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
CONSOLE_CLIENT_ID = Setting(
    "--console-client-id",
    "HANDRAIL_CONSOLE_CLIENT_ID",
    "handrail-console",
    "the id under which the identity provider knows the console",
    str,
)
CONSOLE_CLIENT_SECRET_FILE = Setting(
    "--console-client-secret-file",
    "HANDRAIL_CONSOLE_CLIENT_SECRET_FILE",
    "",
    "file with the console's secret at the provider, read when it starts; without one it is a public client",
    file,
    "FILE",
)
OIDC_NAME = Setting(
    "--oidc-name",
    "HANDRAIL_OIDC_NAME",
    "",
    "what people call the provider, as in `Sign in with NAME`; by default its host name",
    str,
    "NAME",
)
PASTED_TOKENS = Setting(
    "--pasted-tokens",
    "HANDRAIL_PASTED_TOKENS",
    "on",
    "whether people may sign in with a token that they paste",
    switch,
    "on|off",
)

LISTEN = Setting(
    "--listen",
    "HANDRAIL_LISTEN",
    "127.0.0.1:7070",
    "gRPC address to serve; port 0 takes a free one",
    host_and_port,
    "HOST:PORT",
)
TLS_CERT = Setting(
    "--tls-cert",
    "HANDRAIL_TLS_CERT",
    "",
    "certificate to serve with, its chain included; switches TLS on; read anew when it changes",
    file,
    "FILE",
)
TLS_KEY = Setting("--tls-key", "HANDRAIL_TLS_KEY", "", "key of the certificate", file, "FILE")
TLS_CLIENT_CA = Setting(
    "--tls-client-ca",
    "HANDRAIL_TLS_CLIENT_CA",
    "",
    "certificate authority of clients, which need a certificate then",
    file,
    "FILE",
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
    "--replicas",
    "HANDRAIL_REPLICAS",
    "",
    "replicas of each stream: 1, or 3 in a cluster; by default as many as FLOW has, and 1 at first. A coordinator "
    "gives them to new streams only",
    replicas,
    "1|3",
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
    "how often missed flows are looked for",
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
AGENT_MESSAGES = Setting(
    "--agent-messages",
    "HANDRAIL_AGENT_MESSAGES",
    "300",
    "messages a second of one agent, over ten seconds, above which a coordinator reports it",
    count,
    "NUMBER",
)
AGENT_BYTES = Setting(
    "--agent-bytes",
    "HANDRAIL_AGENT_BYTES",
    "2000000",
    "bytes a second of one agent, over ten seconds, above which a coordinator reports it",
    count,
    "NUMBER",
)
GRACE = Setting(
    "--grace", "HANDRAIL_GRACE", "10s", "how long work in progress may take after SIGTERM", duration, "DURATION"
)
CHECK_WORKERS = Setting(
    "--check-workers", "HANDRAIL_CHECK_WORKERS", "1", "number of processes that check templates", count, "NUMBER"
)
CHECK_TIME = Setting(
    "--check-time",
    "HANDRAIL_CHECK_TIME",
    "2s",
    "processor time that checking one template may take",
    at_least(timedelta(seconds=1)),
    "DURATION",
)
REFLECTION = Setting("--reflection", "HANDRAIL_REFLECTION", "on", "serve gRPC reflection: on or off", switch, "on|off")
REFLECTION_CONTRACTS = Setting(
    "--reflection-contracts",
    "HANDRAIL_REFLECTION_CONTRACTS",
    "token",
    "to whom reflection shows the contracts of stored templates: valid tokens, everybody (open) or nobody (off)",
    one_of("token", "open", "off"),
    "token|open|off",
)
CHANNELZ = Setting(
    "--channelz", "HANDRAIL_CHANNELZ", "on", "serve gRPC channelz to operators: on or off", switch, "on|off"
)
MAX_CONNECTIONS = Setting(
    "--max-connections", "HANDRAIL_MAX_CONNECTIONS", "500", "connections at a time; more are closed", count, "NUMBER"
)
MAX_CALLS = Setting(
    "--max-calls", "HANDRAIL_MAX_CALLS", "1000", "calls in progress at a time, without streams", count, "NUMBER"
)
MAX_CALLS_PER_CALLER = Setting(
    "--max-calls-per-caller", "HANDRAIL_MAX_CALLS_PER_CALLER", "256", "calls in progress of one caller", count, "NUMBER"
)
MAX_STREAMS = Setting(
    "--max-streams", "HANDRAIL_MAX_STREAMS", "500", "streams in progress at a time, such as watches", count, "NUMBER"
)
MAX_STREAMS_PER_CALLER = Setting(
    "--max-streams-per-caller",
    "HANDRAIL_MAX_STREAMS_PER_CALLER",
    "32",
    "streams in progress of one caller",
    count,
    "NUMBER",
)
MESSAGE_TIMEOUT = Setting(
    "--message-timeout",
    "HANDRAIL_MESSAGE_TIMEOUT",
    "10s",
    "how long each message of a call may take to arrive",
    at_least(timedelta(milliseconds=100)),
    "DURATION",
)

DATABASE = Setting(
    "",
    "HANDRAIL_DATABASE",
    "sqlite:///visibility.db",
    "database of the index: sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/DATABASE",
    str,
)
ARCHIVE = Setting(
    "--archive",
    "HANDRAIL_ARCHIVE",
    "",
    "folder to archive all messages in; the folder above it must exist. By default nothing is archived",
    file,
    "FOLDER",
)
VISIBILITY_LISTEN = Setting(
    "--visibility-listen",
    "HANDRAIL_VISIBILITY_LISTEN",
    "",
    "gRPC address at which coordinators ask the index, such as 127.0.0.1:7072; by default it is served nowhere",
    optional(host_and_port),
    "HOST:PORT",
)
VISIBILITY_SECRET_FILE = Setting(
    "--visibility-secret-file",
    "HANDRAIL_VISIBILITY_SECRET_FILE",
    "",
    "file with the secret that coordinators and visibility share; read anew when it changes",
    file,
    "FILE",
)
VISIBILITY = Setting(
    "--visibility",
    "HANDRAIL_VISIBILITY",
    "",
    "gRPC address of visibility, which lists are read from; by default only scans of the stream are possible",
    optional(host_and_port),
    "HOST:PORT",
)
VISIBILITY_CA = Setting(
    "--visibility-ca",
    "HANDRAIL_VISIBILITY_CA",
    "",
    "certificate authority of visibility; without it the public ones, and no TLS on this machine",
    file,
    "FILE",
)
RETENTION = Setting(
    "--retention",
    "HANDRAIL_RETENTION",
    "7d",
    "how long a finished flow stays in FLOW after its last message, if its template does not say it: at least 15m, or "
    "off: for ever",
    age,
    "AGE|off",
)
RETENTION_NKEY_FILE = Setting(
    "--retention-nkey-file",
    "HANDRAIL_RETENTION_NKEY_FILE",
    "",
    "file with the nkey seed of the broker's user retention; without it, nothing is purged from FLOW",
    file,
    "FILE",
)
PURGE_RATE = Setting(
    "--purge-rate",
    "HANDRAIL_PURGE_RATE",
    "200",
    "flows that are purged in a second at most; after some it rests as long as these took",
    count,
    "NUMBER",
)
FOLD_PROCESSES = Setting(
    "--fold-processes",
    "HANDRAIL_FOLD_PROCESSES",
    "",
    "processes that help while much waits to be indexed; 0 for none. By default as many as there are cores, at most 4, "
    "and none on a single core",
    optional(number),
    "NUMBER",
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
    from handrail.mesh.bus.bus_settings import BusSettings
    from handrail.mesh.permissions import inbox_prefix

    password = settings.value(NATS_PASSWORD)
    password_file = _file_of(settings.value(NATS_PASSWORD_FILE), name)
    if not password and password_file is not None:
        password = secret(password_file)
    user = settings.value(NATS_USER) or name
    return BusSettings(
        servers=settings.value(NATS),
        name=name,
        user=user if password else "",
        password=password,
        nkey_seed_file=_file_of(settings.value(NATS_NKEY_FILE), name),
        tls_ca=settings.value(NATS_CA),
        tls_cert=settings.value(NATS_CERT),
        tls_key=settings.value(NATS_KEY),
        # The broker's permissions reserve an inbox for each user.
        inbox_prefix=inbox_prefix(user),
    )


def retention_bus_settings(settings: Settings, seed: Path) -> BusSettings:
    """How a process connects as the user `retention`, beside its own user. `seed` is the file with that user's nkey."""
    from handrail.mesh.permissions import RETENTION, inbox_prefix

    return replace(
        bus_settings(settings, RETENTION),
        nkey_seed_file=seed,
        user="",
        password="",
        inbox_prefix=inbox_prefix(RETENTION),
    )


def _file_of(path: Path | None, name: str) -> Path | None:
    """The file of `name`: agents that share settings have a user each."""
    return None if path is None else Path(str(path).replace("{agent}", name))
