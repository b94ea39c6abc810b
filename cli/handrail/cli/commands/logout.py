"""`handrail logout`: forgets a login, and has the provider revoke it."""

from __future__ import annotations

import argparse

from handrail.cli.arguments import add_settings, settings_of
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.login.stored_login import StoredLogin, forget, load
from handrail.cli.output import Output
from handrail.mesh import settings as table
from handrail.mesh.https import FetchError


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.description = (
        "Forget the login for a coordinator, and have the identity provider revoke it. The coordinator accepts a "
        "token that was copied before then until it expires, unless it is revoked there, too (docs/identity.md)."
    )
    add_settings(parser, [table.CONTEXT, table.ADDRESS])
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    address, output = settings_of(arguments).value(table.ADDRESS), Output("table")
    try:
        login = load(address)
    except CommandError:
        login = None  # It can't be read: then there is nothing to revoke, and it is deleted all the same.
    if not forget(address):
        output.text(f"nobody is logged in for {address}")
        return Exit.OK
    why = _revoke(login) if login is not None else ""
    if why:
        output.remark(f"the identity provider did not revoke the login: {why}")
    output.text(f"logged out of {address}")
    return Exit.OK


def _revoke(login: StoredLogin) -> str:
    """Has the provider revoke the login's refresh token (RFC 7009); returns why it did not, empty if it did."""
    if not login.refresh_token:
        return ""
    if not login.revocation_endpoint:
        return "it offers no revocation"
    try:
        form = {"token": login.refresh_token, "token_type_hint": "refresh_token", "client_id": login.client_id}
        login.provider.post(login.revocation_endpoint, form)
    except (FetchError, CommandError) as error:
        return str(error)
    return ""
