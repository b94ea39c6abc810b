"""`handrail coordinator`: runs one replica of the coordinator."""

from __future__ import annotations

import argparse
from datetime import timedelta

from handrail.cli.arguments import COORDINATOR, add_settings, settings_of
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.index_settings import index_settings
from handrail.cli.tls_files import tls_files
from handrail.coordinator.api.budgets import Limit
from handrail.coordinator.api.server import ServerSettings
from handrail.coordinator.api.tokens.rules import ClaimNames, Rules
from handrail.coordinator.api.tokens.settings import TokenSettings
from handrail.coordinator.main import CoordinatorSettings, run_coordinator
from handrail.coordinator.reconcile.traffic import Rate
from handrail.coordinator.workers.process import Limits
from handrail.mesh import event_loop
from handrail.mesh import settings as table
from handrail.mesh.errors import HandrailError
from handrail.mesh.setting import Settings
from handrail.mesh.settings import bus_settings
from handrail.mesh.telemetry import logs
from handrail.mesh.wire.subjects import COORDINATOR as NAME


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.description = "Run a replica of the coordinator until SIGTERM or Ctrl-C. Any number may run side by side."
    add_settings(parser, COORDINATOR)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    settings = settings_of(arguments)
    wanted = coordinator_settings(settings)
    logs.configure(settings.value(table.LOG_LEVEL).upper())
    host = wanted.server.address.rpartition(":")[0]
    try:
        event_loop.run(run_coordinator(wanted, on_ready=lambda port: print(f"serving on {host}:{port}", flush=True)))
    except ExceptionGroup as group:
        raise _only(group) from None
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from None
    return Exit.OK


def coordinator_settings(settings: Settings) -> CoordinatorSettings:
    """Returns the coordinator's settings; raises CommandError if no key is given."""
    keys, tokens = settings.value(table.JWT_PUBLIC_KEYS), token_settings(settings)
    if not keys and not tokens.key_set:
        raise CommandError(
            f"no key to verify tokens: name one with {table.JWT_PUBLIC_KEYS.flag} or {table.JWT_PUBLIC_KEYS.env}, "
            f"or a key set with {table.JWT_KEY_SET.flag} or {table.JWT_KEY_SET.env}",
            Exit.USAGE,
        )
    return CoordinatorSettings(
        bus=bus_settings(settings, NAME),
        server=ServerSettings(
            address=settings.value(table.LISTEN),
            public_keys=keys,
            tokens=tokens,
            tls=tls_files(settings, client_ca=settings.value(table.TLS_CLIENT_CA)),
            reflection=settings.value(table.REFLECTION),
            reflected_contracts=settings.value(table.REFLECTION_CONTRACTS),
            channelz=settings.value(table.CHANNELZ),
            index=index_settings(settings),
            connections=settings.value(table.MAX_CONNECTIONS),
            calls=Limit(total=settings.value(table.MAX_CALLS), each=settings.value(table.MAX_CALLS_PER_CALLER)),
            streams=Limit(total=settings.value(table.MAX_STREAMS), each=settings.value(table.MAX_STREAMS_PER_CALLER)),
            message_timeout=settings.value(table.MESSAGE_TIMEOUT),
            check_workers=settings.value(table.CHECK_WORKERS),
            check_limits=Limits(time=settings.value(table.CHECK_TIME)),
            grace=settings.value(table.GRACE),
        ),
        replicas=settings.value(table.REPLICAS),
        lease_ttl=settings.value(table.LEASE_TTL),
        sweep_interval=settings.value(table.SWEEP_INTERVAL),
        sweep_everything=settings.value(table.SWEEP_EVERYTHING),
        traffic_limit=Rate(settings.value(table.AGENT_MESSAGES), settings.value(table.AGENT_BYTES)),
        connect_timeout=timedelta(minutes=1),
    )


def token_settings(settings: Settings) -> TokenSettings:
    """Returns which tokens the settings accept."""
    return TokenSettings(
        rules=Rules(
            issuer=settings.value(table.JWT_ISSUER),
            audience=settings.value(table.JWT_AUDIENCE),
            max_lifetime=settings.value(table.JWT_MAX_LIFETIME),
            required=settings.value(table.JWT_REQUIRED_CLAIMS),
            names=ClaimNames(**settings.value(table.JWT_CLAIMS)),
        ),
        algorithms=settings.value(table.JWT_ALGORITHMS),
        key_set=settings.value(table.JWT_KEY_SET),
        key_set_ca=settings.value(table.JWT_KEY_SET_CA),
        refresh=settings.value(table.JWT_KEY_SET_REFRESH),
        cooldown=settings.value(table.JWT_KEY_SET_COOLDOWN),
        stale_after=settings.value(table.JWT_KEY_SET_STALE_AFTER),
        revocations=settings.value(table.JWT_REVOCATIONS),
    )


def _only(error: Exception) -> Exception:
    """Returns the single error of a group of tasks; the group itself if it contains none of our errors."""
    while isinstance(error, ExceptionGroup):
        ours = error.subgroup(HandrailError)
        if ours is None:
            return error
        error = ours.exceptions[0]
    return error
