"""`handrail login`: logs in at an identity provider, in a browser on any machine."""

from __future__ import annotations

import argparse

from handrail.cli.arguments import LOGIN, add_settings, settings_of
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.login.device_flow import Request, begin, wait
from handrail.cli.login.provider import discover
from handrail.cli.login.stored_login import StoredLogin, save
from handrail.cli.output import Output
from handrail.mesh import settings as table


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.description = (
        "Log in at an identity provider: the command shows a link and a code, and waits until you have confirmed the "
        "code there. Later commands for the same --address use the login when no other token is given."
    )
    add_settings(parser, [table.CONTEXT, table.ADDRESS, *LOGIN])
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    settings = settings_of(arguments)
    address, ca = settings.value(table.ADDRESS), settings.value(table.OIDC_CA)
    output = Output("table")
    issuer = settings.value(table.OIDC_ISSUER)
    if not issuer:
        raise CommandError(
            f"no identity provider: name it with {table.OIDC_ISSUER.flag} or {table.OIDC_ISSUER.env}", Exit.USAGE
        )
    provider = discover(issuer, ca)
    request = Request(
        client_id=settings.value(table.OIDC_CLIENT_ID),
        scope=" ".join(settings.value(table.OIDC_SCOPE)),
        resource=settings.value(table.OIDC_RESOURCE),
    )
    code = begin(provider, request)
    output.remark(f"open {code.direct_link or code.link} and confirm the code {code.user_code}")
    tokens = wait(provider, request, code)
    login = StoredLogin(
        issuer=provider.issuer,
        client_id=request.client_id,
        resource=request.resource,
        token_endpoint=provider.token,
        revocation_endpoint=provider.revocation,
        ca=str(ca.absolute()) if ca else "",
        access_token="",
        refresh_token="",
        expires_at="",
    ).with_tokens(tokens)
    save(address, login)
    until = f", until {login.expires_at}" if login.expires_at and not login.refresh_token else ""
    output.text(f"logged in for {address}{until}; handrail whoami says as whom")
    return Exit.OK
