"""`handrail delegation`: a person passes a role on to another one for a time."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta

from handrail.cli.arguments import CALLER, add_flow_type, add_request_id, add_settings, days, moment, positive
from handrail.cli.enum_words import delegation_status
from handrail.cli.exit_codes import Exit
from handrail.cli.output import Output, time
from handrail.cli.session import plain, session
from handrail.v1 import delegation_service_pb2 as pb

_DEFAULT_LIMIT = 50


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)

    add = verbs.add_parser(
        "add",
        help="pass on a role that you hold",
        description="Pass on a role that your own token holds, at most for 90 days. You and the delegate count as one "
        "person in a vote. A delegated role can't be passed on.",
    )
    add.add_argument("delegate", metavar="PERSON", help="who may use the role: the subject of their token")
    add.add_argument("--role", required=True, metavar="ROLE", help="the role, as gates name it")
    add_flow_type(add, "only for flows of this type [default: all]", default="*")
    add.add_argument("--for", type=days, default="7d", metavar="DURATION", dest="lasts", help="how long [default 7d]")
    add.add_argument("--from", type=moment, metavar="TIME", dest="start", help="when it begins [default: now]")
    add.add_argument("--reason", default="", help="why, for people; it is recorded")
    add_request_id(add)
    add_settings(add, CALLER)
    add.set_defaults(run=_add)

    end = verbs.add_parser("end", help="end a delegation before its time")
    end.add_argument("delegation_id", metavar="DELEGATION", help="id as listed")
    end.add_argument("--reason", default="", help="why, for people; it is recorded")
    add_request_id(end)
    add_settings(end, CALLER)
    end.set_defaults(run=_end)

    listing = verbs.add_parser("list", help="list your delegations; as operator, all")
    listing.add_argument("--all", action="store_true", help="include those that are over")
    listing.add_argument(
        "--limit", type=positive, default=_DEFAULT_LIMIT, metavar="N", help="at most N entries [default 50]"
    )
    add_settings(listing, CALLER)
    listing.set_defaults(run=_list)


def _add(arguments: argparse.Namespace) -> Exit:
    lasts: timedelta = arguments.lasts
    start: datetime = arguments.start or datetime.now(UTC)
    request = pb.DelegateRequest(
        delegate=arguments.delegate, role=arguments.role, flow_type=arguments.flow_type, reason=arguments.reason
    )
    if arguments.start is not None:
        request.start_time.FromDatetime(start)
    request.end_time.FromDatetime(start + lasts)
    with session(arguments) as asked:
        _print(asked.output, asked.client.call(asked.client.delegations.Delegate, request).delegation)
    return Exit.OK


def _end(arguments: argparse.Namespace) -> Exit:
    request = pb.EndDelegationRequest(delegation_id=arguments.delegation_id, reason=arguments.reason)
    with session(arguments) as asked:
        _print(asked.output, asked.client.call(asked.client.delegations.EndDelegation, request).delegation)
    return Exit.OK


def _list(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        request = pb.ListDelegationsRequest(include_past=arguments.all)
        method = asked.client.delegations.ListDelegations
        found = list(asked.client.listed(method, request, items=lambda page: page.delegations, limit=arguments.limit))
        if asked.output.is_json:
            asked.output.document({"delegations": [plain(each) for each in found]})
        else:
            asked.output.table(
                ("DELEGATION", "FROM", "TO", "ROLE", "OF", "STATUS", "UNTIL"),
                [_row(each) for each in found],
                empty="No delegations are in force.",
            )
    return Exit.OK


def _row(listed: pb.ListedDelegation) -> tuple[object, ...]:
    each = listed.delegation
    return (
        each.delegation_id,
        each.delegator,
        each.delegate,
        each.role,
        each.flow_type,
        delegation_status(listed),
        time(each.end_time),
    )


def _print(output: Output, listed: pb.ListedDelegation) -> None:
    if output.is_json:
        output.document(plain(listed))
        return
    each = listed.delegation
    output.fields(
        [
            ("delegation", each.delegation_id),
            ("from", each.delegator),
            ("to", each.delegate),
            ("role", each.role),
            ("flow type", each.flow_type),
            ("status", delegation_status(listed)),
            ("begins", time(each.start_time)),
            ("ends", time(each.end_time)),
            ("reason", each.reason),
            ("ended by", listed.end.by),
        ]
    )
