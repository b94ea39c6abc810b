"""Lists that commands show: their arguments, and what is said below them."""

from __future__ import annotations

import argparse
from typing import Protocol, TypeVar

from handrail.cli.arguments import positive
from handrail.cli.client import Listed
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.output import Output, time
from handrail.v1.listing_pb2 import AsOf, Total

DEFAULT_LIMIT = 50


Item = TypeVar("Item")


class _Request(Protocol):
    filter: str
    order_by: str
    page_token: str
    scan: bool


def add_list_arguments(parser: argparse.ArgumentParser, *, orders: str) -> None:
    """Adds the arguments of a list whose items have these orders."""
    add_filter_arguments(parser)
    parser.add_argument(
        "--order-by", default="", metavar="ORDER", help=f"{orders}; 'ORDER desc' is the other way round"
    )
    add_page_arguments(parser)


def add_page_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say where a list begins, and how long it is."""
    parser.add_argument(
        "--limit",
        type=positive,
        default=DEFAULT_LIMIT,
        metavar="N",
        help=f"at most N entries [default {DEFAULT_LIMIT}]; counts are complete",
    )
    parser.add_argument(
        "--page-token", default="", metavar="TOKEN", help="go on where a list ended that named this token"
    )


def add_filter_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that choose flows, or a scan."""
    parser.add_argument(
        "--filter", default="", metavar="FILTER", help="only of flows that pass it, as in 'status = ESCALATED age > 2h'"
    )
    add_scan(parser)


def add_scan(parser: argparse.ArgumentParser) -> None:
    """Adds the argument that needs no visibility."""
    parser.add_argument(
        "--scan", action="store_true", help="read the stream instead of the index: slow, but it needs no visibility"
    )


def fill_request(request: _Request, arguments: argparse.Namespace) -> None:
    """Sets what the arguments of a list say. Raises CommandError for arguments that exclude each other."""
    if arguments.scan and (arguments.filter or arguments.order_by):
        raise CommandError("--scan takes neither --filter nor --order-by", Exit.USAGE)
    request.filter, request.order_by = arguments.filter, arguments.order_by
    request.page_token, request.scan = arguments.page_token, arguments.scan


def document(listed: Listed[Item]) -> dict[str, object]:
    """Returns what a program is told besides the items."""
    told: dict[str, object] = {"nextPageToken": listed.next_page_token} if listed.next_page_token else {}
    if listed.as_of is not None:
        told["total"] = {"items": listed.total.items, "atLeast": listed.total.at_least}
        told["asOf"] = as_of_document(listed.as_of)
    return told


def as_of_document(as_of: AsOf) -> dict[str, object]:
    """Returns what an answer covers, for programs."""
    behind = {"messagesBehind": as_of.messages_behind} if as_of.HasField("messages_behind") else {}
    return {"sequence": as_of.sequence, "time": time(as_of.time), **behind}


def remark(output: Output, listed: Listed[Item]) -> None:
    """Says below a list how much of it was shown, what it covers, and how it goes on."""
    if listed.as_of is not None:
        output.remark(f"{_shown(len(listed.items), listed.total)}; {as_of_text(listed.as_of)}")
    if listed.next_page_token:
        output.remark(f"there are more: --page-token {listed.next_page_token}")


def as_of_text(as_of: AsOf) -> str:
    """Says what an answer covers."""
    if not as_of.HasField("messages_behind"):
        return f"as of {time(as_of.time)}, sequence {as_of.sequence:,}"
    if not as_of.messages_behind:
        return "as of now"
    return f"as of {time(as_of.time)}, {as_of.messages_behind:,} messages behind"


def _shown(items: int, total: Total) -> str:
    return f"{items:,} of {'more than ' * total.at_least}{total.items:,}"
