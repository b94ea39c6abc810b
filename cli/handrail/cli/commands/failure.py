"""`handrail failure`: what fails, counted by what the failures have in common."""

from __future__ import annotations

import argparse
from datetime import datetime

from handrail.cli.arguments import CALLER, add_flow_type, add_settings, positive, since
from handrail.cli.exit_codes import Exit
from handrail.cli.listing import DEFAULT_LIMIT, as_of_document, as_of_text
from handrail.cli.output import time
from handrail.cli.session import plain, session
from handrail.v1 import flow_service_pb2 as pb

_MOST = 500


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    text = "list failed and silent attempts by step, error class and text, the most frequent first; needs visibility"
    listing = verbs.add_parser("list", help=text, description=f"{text[:1].upper()}{text[1:]}.")
    add_flow_type(listing, "only of flows of this type")
    listing.add_argument("--since", type=since, metavar="WHEN", help="omit older ones: 24h, or 2026-11-22T21:00:00Z")
    listing.add_argument(
        "--filter", default="", metavar="FILTER", help="only of flows that pass it, as in 'status = ESCALATED'"
    )
    listing.add_argument(
        "--limit",
        type=positive,
        default=DEFAULT_LIMIT,
        metavar="N",
        help=f"at most N kinds of failures, up to {_MOST} [default {DEFAULT_LIMIT}]",
    )
    add_settings(listing, CALLER)
    listing.set_defaults(run=_list)


def _list(arguments: argparse.Namespace) -> Exit:
    request = pb.ListFailuresRequest(
        flow_type=arguments.flow_type, filter=arguments.filter, limit=min(arguments.limit, _MOST)
    )
    moment: datetime | None = arguments.since
    if moment is not None:
        request.since.FromDatetime(moment)
    with session(arguments) as asked:
        answer = asked.client.call(asked.client.flows.ListFailures, request)
        if asked.output.is_json:
            failures = [plain(each) for each in answer.failures]
            document = {"failures": failures, "more": answer.more, "asOf": as_of_document(answer.as_of)}
            asked.output.document(document)
            return Exit.OK
        asked.output.table(
            ("COUNT", "TYPE", "STEP", "ERROR", "TEXT", "LAST", "IN FLOW", "SINCE"),
            [_row(each) for each in answer.failures],
            empty="No failures.",
        )
        asked.output.remark(as_of_text(answer.as_of))
        if answer.more:
            asked.output.remark(more(arguments.limit))
    return Exit.OK


def more(limit: int) -> str:
    """Says how to see the failures that a list of this limit left out."""
    raised = "raise --limit, or " if limit < _MOST else ""
    return f"there are more: {raised}narrow the list with --since or --filter"


def _row(each: pb.FailureSummary) -> tuple[object, ...]:
    seen = time(each.last_time), each.flow_id, time(each.first_time)
    return each.count, each.flow_type, each.step, each.error_class, each.text, *seen
