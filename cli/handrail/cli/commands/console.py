"""`handrail console`: serves pages that show people what flows do."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from handrail.cli.arguments import CONSOLE, add_settings, settings_of
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.transport import Transport
from handrail.mesh import event_loop
from handrail.mesh import settings as table
from handrail.mesh.setting import Settings, secret
from handrail.mesh.telemetry import logs

if TYPE_CHECKING:
    from handrail.console.openid.client import Client


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.description = (
        "Serve pages for browsers until SIGTERM or Ctrl-C. People sign in with their own tokens. It keeps nothing but "
        "their sessions, in memory; any number may run side by side, each with sessions of its own."
    )
    add_settings(parser, CONSOLE)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    from handrail.console.main import run_console
    from handrail.console.options import OptionError, Options

    settings = settings_of(arguments)
    logs.configure(settings.value(table.LOG_LEVEL).upper())
    transport = Transport.of(settings)
    certificate = settings.value(table.TLS_CERT)
    try:
        options = Options(
            listen=settings.value(table.CONSOLE_LISTEN),
            coordinator=transport.address,
            credentials=transport.credentials,
            hosts=frozenset(each.lower() for each in settings.value(table.ALLOWED_HOST)),
            trusted_proxies=settings.value(table.TRUSTED_PROXY),
            identities=settings.value(table.IDENTITIES),
            openid=_client(settings),
            pasted=settings.value(table.PASTED_TOKENS),
            trace_link=settings.value(table.TRACE_LINK),
            certificate=certificate,
            key=settings.value(table.TLS_KEY),
            timeout=settings.value(table.TIMEOUT),
        )
    except OptionError as error:
        raise CommandError(str(error), Exit.USAGE) from None
    base = f"{'http' if certificate is None else 'https'}://{options.listen.rpartition(':')[0]}"
    try:
        event_loop.run(run_console(options, on_ready=lambda port: print(f"serving on {base}:{port}", flush=True)))
    except OSError as error:
        raise CommandError(f"the console can't listen on {options.listen}: {error.strerror}") from None
    return Exit.OK


def _client(settings: Settings) -> Client | None:
    """The console as a client of the identity provider; None without one."""
    from handrail.console.openid.client import Client, ClientError

    issuer, path = settings.value(table.OIDC_ISSUER), settings.value(table.CONSOLE_CLIENT_SECRET_FILE)
    if not issuer:
        if path is not None:
            raise CommandError(f"{path} has a secret for no identity provider: name it by --oidc-issuer", Exit.USAGE)
        return None
    given = secret(path) if path is not None else ""
    if path is not None and not given:
        raise CommandError(f"{path} is empty: it has to hold the console's secret at {issuer}", Exit.USAGE)
    try:
        return Client(
            issuer=issuer,
            client_id=settings.value(table.CONSOLE_CLIENT_ID),
            secret=given,
            scope=settings.value(table.OIDC_SCOPE),
            resource=settings.value(table.OIDC_RESOURCE),
            ca=settings.value(table.OIDC_CA),
            title=settings.value(table.OIDC_NAME),
            timeout=settings.value(table.TIMEOUT),
        )
    except ClientError as error:
        raise CommandError(str(error), Exit.USAGE) from None
