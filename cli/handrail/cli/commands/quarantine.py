"""`handrail quarantine`: messages that broke their contract (the dead-letter queue)."""

from __future__ import annotations

import argparse

from handrail.cli.arguments import CALLER, add_flow_type, add_settings, positive
from handrail.cli.enum_words import word
from handrail.cli.exit_codes import Exit
from handrail.cli.output import time
from handrail.cli.session import plain, session
from handrail.cli.terminal import Id
from handrail.v1 import quarantine_service_pb2 as pb
from handrail.v1.error_reason_pb2 import ErrorReason

_DEFAULT_LIMIT = 50
_BYTES_A_LINE = 16


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)

    listing = verbs.add_parser("list", help="list quarantined messages, by agent")
    add_flow_type(listing, "only flows of this type")
    listing.add_argument("--agent", default="", metavar="AGENT", help="only the quarantine of this agent")
    listing.add_argument(
        "--limit", type=positive, default=_DEFAULT_LIMIT, metavar="N", help="at most N messages [default 50]"
    )
    add_settings(listing, CALLER)
    listing.set_defaults(run=_list)

    show = verbs.add_parser("show", help="show a message with its bytes")
    show.add_argument("message", type=_named, metavar="ID", help="id as listed, such as ledger/17")
    add_settings(show, CALLER)
    show.set_defaults(run=_show)


def _list(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        request = pb.ListQuarantinedRequest(flow_type=arguments.flow_type, agent=arguments.agent)
        method = asked.client.quarantine.ListQuarantined
        found = list(asked.client.listed(method, request, items=lambda page: page.messages, limit=arguments.limit))
        if asked.output.is_json:
            asked.output.document({"messages": [plain(each) for each in found]})
        else:
            asked.output.table(
                ("ID", "TIME", "FLOW", "REPORTER", "REASON", "DETAIL"),
                [
                    (_id(m), time(m.time), Id(m.flow_id), m.message.reporter, _reason(m), m.message.detail)
                    for m in found
                ],
                empty="The quarantine is empty.",
            )
    return Exit.OK


def _show(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        agent, number = arguments.message
        request = pb.GetQuarantinedRequest(agent=agent, quarantine_id=number)
        found = asked.client.call(asked.client.quarantine.GetQuarantined, request).message
        if asked.output.is_json:
            asked.output.document(plain(found))
            return Exit.OK
        asked.output.fields(
            [
                ("id", _id(found)),
                ("time", time(found.time)),
                ("flow", f"{found.flow_type} {found.flow_id}"),
                ("reporter", found.message.reporter),
                ("reason", _reason(found)),
                ("detail", found.message.detail),
                ("subject", found.message.subject),
                ("sequence", found.message.stream_sequence),
                ("size", f"{len(found.message.body)} bytes"),
            ]
        )
        for line in hex_dump(found.message.body):
            asked.output.text(line)
    return Exit.OK


def hex_dump(body: bytes) -> list[str]:
    """Formats bytes in hex with their characters beside, sixteen per line."""
    lines = []
    for start in range(0, len(body), _BYTES_A_LINE):
        part = body[start : start + _BYTES_A_LINE]
        characters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:06x}  {part.hex(' '):{_BYTES_A_LINE * 3}} {characters}")
    return lines


def _named(text: str) -> tuple[str, int]:
    """Parses the id of a message: AGENT/NUMBER, or a number alone for the coordinator's own quarantine."""
    agent, _, number = text.rpartition("/")
    return agent, positive(number)


def _id(found: pb.QuarantinedMessage) -> str:
    return f"{found.agent}/{found.quarantine_id}" if found.agent else f"{found.quarantine_id}"


def _reason(found: pb.QuarantinedMessage) -> str:
    # The record is an agent's own: it may hold any number.
    reason = found.message.reason
    return word(ErrorReason.Name(reason), "ERROR_REASON_") if reason in ErrorReason.values() else "UNKNOWN"
