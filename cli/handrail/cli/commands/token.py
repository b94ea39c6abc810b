"""`handrail token`: bearer tokens for development and small installations."""

from __future__ import annotations

import argparse
from pathlib import Path

from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.private_files import write_private
from handrail.coordinator.api.claims import GRANTS, caller_of
from handrail.coordinator.api.dev_tokens import ensure_keys, mint
from handrail.mesh.errors import HandrailError
from handrail.mesh.setting_parsers import duration


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.description = (
        "Sign a bearer token with the key pair in a folder; the first call creates the pair. The coordinator "
        "needs the public one: --jwt-public-keys DIR/jwt-public.pem."
    )
    parser.add_argument("subject", metavar="SUBJECT", help="who the token is for: a person or a program")
    parser.add_argument("--keys", required=True, type=Path, metavar="DIR", help="folder of the key pair")
    parser.add_argument(
        "--role",
        action="append",
        default=[],
        metavar="ROLE",
        dest="roles",
        help="role on every flow type: operator, viewer, starter, or a role that a gate names",
    )
    parser.add_argument(
        "--grant",
        action="append",
        default=[],
        metavar="ROLE@TYPE",
        dest="grants",
        help="role on one flow type, or on every type with @*: operator@refund, approver.finance@*, reader@*; "
        "without any --grant, the token may read everything",
    )
    parser.add_argument("--agent", default="", metavar="NAME", help="agent that the bearer speaks for")
    parser.add_argument(
        "--lifetime",
        type=duration,
        default="12h",
        metavar="DURATION",
        help="how long it is valid; coordinators refuse more than --jwt-max-lifetime [default 12h]",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write to this file, readable by its owner only [default: print]"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    try:
        # A token that no coordinator accepts is refused here, not at its first use.
        granted = {GRANTS: arguments.grants} if arguments.grants else {}
        caller_of({"sub": arguments.subject, "roles": arguments.roles, "agent": arguments.agent, **granted})
        keys = ensure_keys(arguments.keys)
        token = mint(
            keys.private,
            arguments.subject,
            roles=arguments.roles,
            grants=arguments.grants or None,
            agent=arguments.agent,
            lifetime=arguments.lifetime,
        )
        if arguments.out is None:
            print(token)
        else:
            write_private(arguments.out, token + "\n")
    except OSError as error:
        raise CommandError(f"{error.filename or arguments.keys}: {error.strerror}") from None
    except HandrailError as error:
        raise CommandError(error.text) from None
    except ValueError as error:
        raise CommandError(str(error)) from None
    return Exit.OK
