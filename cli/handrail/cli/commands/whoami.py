"""`handrail whoami`: who the coordinator takes the caller for."""

from __future__ import annotations

import argparse

from handrail.cli.arguments import CALLER, add_settings
from handrail.cli.exit_codes import Exit
from handrail.cli.output import time
from handrail.cli.session import plain, session
from handrail.v1.identity_service_pb2 import WhoAmIRequest


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.description = "Show who the coordinator takes you for, what you are granted, and until when."
    add_settings(parser, CALLER)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        answer = asked.client.call(asked.client.identity.WhoAmI, WhoAmIRequest())
        if asked.output.is_json:
            asked.output.document(plain(answer))
            return Exit.OK
        different = answer.canonical_subject if answer.canonical_subject != answer.subject else ""
        asked.output.fields(
            [
                ("subject", answer.subject),
                ("compared as", different),
                ("agent", answer.agent),
                ("grants", ", ".join(answer.grants) or "none"),
                ("issuer", answer.issuer),
                ("token", answer.token_id),
                ("issued", time(answer.issue_time)),
                ("expires", time(answer.expire_time)),
            ]
        )
    return Exit.OK
