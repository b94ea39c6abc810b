"""How people name a flow or an approval: by its id, by the first digits of it, or by the flow's type and business key.

Every command that takes one takes all of these.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from handrail.cli.enum_words import approval_status, status_of
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.output import columns
from handrail.mesh.printable import clean, shortened
from handrail.v1 import flow_service_pb2 as pb

if TYPE_CHECKING:
    from handrail.cli.session import Session

LEAST_DIGITS = 4
"""The fewest digits that name a flow: fewer are more likely a mistake than a flow."""

_MOST_LISTED = 10
_ID = re.compile(r"[0-9a-f]{32}")
_DIGITS = re.compile(rf"[0-9a-f]{{{LEAST_DIGITS},31}}")
_TYPE = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_NO_INDEX = ("NO_INDEX", "INDEX_UNAVAILABLE")


def add_flow(parser: argparse.ArgumentParser) -> None:
    """Adds the argument that names a flow."""
    parser.add_argument("flow", metavar="FLOW", help=f"flow id, its first digits ({LEAST_DIGITS} or more), or TYPE/KEY")
    _add_flow_type(parser, "FLOW is the business key of a flow of this type")


def add_approval(parser: argparse.ArgumentParser) -> None:
    """Adds the argument that names an approval."""
    parser.add_argument(
        "approval", metavar="APPROVAL", help="approval id, its beginning, or the flow's id, first digits or TYPE/KEY"
    )
    _add_flow_type(parser, "APPROVAL is the business key of a flow of this type")


def _add_flow_type(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--flow-type", default="", metavar="TYPE", help=text)


def exact_flow_id(text: str, flow_type: str = "") -> str | None:
    """Returns the id of a flow that is named by its id or by type and key; None for anything else. Asks nobody."""
    if flow_type:
        return _id_of_key(flow_type, text)
    if _ID.fullmatch(text):
        return text
    named, slash, key = text.partition("/")
    return _id_of_key(named, key) if slash and key else None


def flow_id_of(asked: Session, arguments: argparse.Namespace) -> str:
    """Returns the id of the flow that a command line names. Raises CommandError if it names none, or several."""
    return _flow_id(asked, arguments.flow, arguments.flow_type)


def approval_id_of(asked: Session, arguments: argparse.Namespace) -> str:
    """Returns the id of the approval that a command line names: of several that a flow has, the one that is pending.

    Raises CommandError if it names none, or several.
    """
    text: str = arguments.approval
    flow_type, flow_part, own_part = "", text, ""
    if not arguments.flow_type and "/" not in text and "." in text:
        flow_type, flow_part, own_part = (*text.split(".", 2), "")[:3]
        if _ID.fullmatch(flow_part) and _ID.fullmatch(own_part):
            return text
    flow_id = _flow_id(asked, flow_part, arguments.flow_type, of_type=flow_type)
    flow = asked.client.call(asked.client.flows.GetFlow, pb.GetFlowRequest(flow_id=flow_id)).flow
    if flow_type not in ("", flow.flow_type):
        raise CommandError(f"flow {flow_id} is of type {flow.flow_type}, not {flow_type}", Exit.NOT_FOUND)
    return _chosen(text, flow, own_part)


def _chosen(text: str, flow: pb.Flow, own_part: str) -> str:
    found = [each for each in flow.approvals if each.approval_id.rpartition(".")[2].startswith(own_part)]
    waiting = [each for each in found if each.status == pb.ApprovalStatus.APPROVAL_STATUS_PENDING]
    if len(found) != 1 and len(waiting) == 1:
        found = waiting
    if len(found) == 1:
        return found[0].approval_id
    if not found:
        raise CommandError(f"flow {flow.flow_id} has no approval {own_part}".rstrip(), Exit.NOT_FOUND)
    raise _ambiguous(text, "approvals", [(each.approval_id, approval_status(each), each.type) for each in found])


def _flow_id(asked: Session, text: str, flow_type: str = "", *, of_type: str = "") -> str:
    exact = exact_flow_id(text, flow_type)
    if exact is not None:
        return exact
    if not _DIGITS.fullmatch(text):
        raise CommandError(
            f'"{_shown(text)}" names no flow: take its id, {LEAST_DIGITS} or more of its first digits, or TYPE/KEY',
            Exit.USAGE,
        )
    found = _beginning_with(asked, text, of_type)
    if not found:
        raise CommandError(f"no flow that the index or an earlier command listed begins with {text}", Exit.NOT_FOUND)
    if len(found) > 1:
        raise _ambiguous(text, "flows", [(f.flow_id, f.flow_type, f.key, status_of(f)) for f in found])
    return found[0].flow_id


def _beginning_with(asked: Session, digits: str, flow_type: str) -> Sequence[pb.Flow]:
    """The flows that the index has, and those that commands printed lately: it may not have these yet."""
    request = pb.ListFlowsRequest(filter=f'flow_id = "{digits}*"', flow_type=flow_type, page_size=_MOST_LISTED)
    found: dict[str, pb.Flow] = {}
    method = asked.client.flows.ListFlows
    try:
        for flow in asked.client.listed(method, request, items=lambda page: page.flows, limit=_MOST_LISTED):
            found[flow.flow_id] = flow
    except CommandError as error:
        if error.reason not in _NO_INDEX:
            raise
    for each in asked.recent.read():
        if each.flow_id.startswith(digits) and flow_type in ("", each.flow_type):
            found.setdefault(each.flow_id, pb.Flow(flow_id=each.flow_id, flow_type=each.flow_type))
    return [*found.values()]


def _ambiguous(text: str, what: str, rows: Sequence[Sequence[str]]) -> CommandError:
    cells = [[clean(cell) for cell in row] for row in rows[:_MOST_LISTED]]
    listed = "\n".join(f"  {line}" for line in columns(cells))
    return CommandError(f"{_shown(text)} names several {what}; say more of one of them:\n{listed}", Exit.USAGE)


def _id_of_key(flow_type: str, key: str) -> str:
    from handrail.mesh.wire.ids import flow_id_from_key  # brings OpenSSL

    if not _TYPE.fullmatch(flow_type):
        raise CommandError(
            f'"{_shown(flow_type)}" is no flow type: TYPE/KEY and --flow-type take a template\'s name', Exit.USAGE
        )
    return flow_id_from_key(flow_type, key)


def _shown(typed: str) -> str:
    return clean(shortened(typed, 200))
