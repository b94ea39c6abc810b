"""`handrail approval`: proposals that wait for people, and their answers."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout

from google.protobuf.json_format import MessageToDict

from handrail.cli.arguments import CALLER, add_flow_type, add_request_id, add_settings
from handrail.cli.commands.flow_show import votes
from handrail.cli.enum_words import approval_status
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.flow_names import add_approval, approval_id_of
from handrail.cli.listing import add_list_arguments, document, fill_request, remark
from handrail.cli.output import Output, time
from handrail.cli.pending import say_pending
from handrail.cli.recent_flows import RecentFlow
from handrail.cli.session import Session, plain, session
from handrail.cli.terminal import Id
from handrail.cli.watching import add_watch
from handrail.mesh.printable import json_text
from handrail.v1 import approval_service_pb2 as pb
from handrail.v1.flow_service_pb2 import Approval


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)

    listing = verbs.add_parser("list", help="list pending approvals, oldest first")
    add_flow_type(listing, "only flows of this type")
    listing.add_argument("--all", action="store_true", help="include closed approvals")
    add_list_arguments(listing, orders="requested")
    add_settings(listing, CALLER)
    add_watch(listing, _list)

    show = verbs.add_parser("show", help="show a proposal, its gates and votes")
    add_approval(show)
    add_settings(show, CALLER)
    show.set_defaults(run=_show)

    for name, text, default, run in (
        ("approve", "vote yes", "show the proposal and ask; needs a terminal", _approve),
        ("reject", "vote no; one no rejects", "its current one", _reject),
    ):
        vote = verbs.add_parser(name, help=text)
        add_approval(vote)
        vote.add_argument(
            "--digest",
            default="",
            help=f"vote only if the proposal has this digest, as show prints it [default: {default}]",
        )
        vote.add_argument("--comment", default="", help="a comment for people; it is recorded")
        add_request_id(vote)
        add_settings(vote, CALLER)
        vote.set_defaults(run=run)

    reassign = verbs.add_parser(
        "reassign",
        help="let other roles vote at a gate",
        description="Let other roles vote on a proposal at one gate. The quorum, votes that counted and who is barred "
        "stay. Whoever reassigns an approval may not vote on it.",
    )
    add_approval(reassign)
    reassign.add_argument(
        "--role", action="append", required=True, metavar="ROLE", dest="roles", help="a role that may vote; repeatable"
    )
    reassign.add_argument("--gate", default="", metavar="NAME", help="the gate [default: the only one that waits]")
    reassign.add_argument(
        "--digest", default="", help="only if the proposal has this digest [default: its current one]"
    )
    reassign.add_argument("--reason", default="", help="why, for people; it is recorded")
    add_request_id(reassign)
    add_settings(reassign, CALLER)
    reassign.set_defaults(run=_reassign)


def _list(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        request = pb.ListApprovalsRequest(flow_type=arguments.flow_type, include_closed=arguments.all)
        fill_request(request, arguments)
        method = asked.client.approvals.ListApprovals
        found = asked.client.indexed(method, request, items=lambda page: page.approvals, limit=arguments.limit)
        asked.recent.add(RecentFlow(each.flow_id, each.flow_type) for each in found.items)
        if asked.output.is_json:
            asked.output.document({"approvals": [_document(each) for each in found.items], **document(found)})
        else:
            asked.output.table(
                ("APPROVAL", "TYPE", "OF", "STATUS", "VOTES", "EXPIRES", "DATA"),
                [_row(approval) for approval in found.items],
                empty="No approvals are pending.",
            )
            remark(asked.output, found)
    return Exit.OK


def _row(approval: Approval) -> tuple[object, ...]:
    quorum = max((gate.quorum for gate in approval.gates), default=0)
    return (
        Id(approval.approval_id),
        approval.flow_type,
        approval.type,
        approval_status(approval),
        f"{sum(vote.approve for vote in approval.votes)}/{quorum}",
        time(approval.expire_time),
        _data(approval),
    )


def _show(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        _print(asked.output, _get(asked, approval_id_of(asked, arguments)))
    return Exit.OK


def _approve(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        approval_id = approval_id_of(asked, arguments)
        request = pb.ApproveProposalRequest(
            approval_id=approval_id, digest=_seen_digest(asked, arguments, approval_id), comment=arguments.comment
        )
        _voted(asked.output, asked.client.call(asked.client.approvals.ApproveProposal, request).approval)
    return Exit.OK


def _reject(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        approval_id = approval_id_of(asked, arguments)
        request = pb.RejectProposalRequest(
            approval_id=approval_id, digest=_digest(asked, arguments, approval_id), comment=arguments.comment
        )
        _voted(asked.output, asked.client.call(asked.client.approvals.RejectProposal, request).approval)
    return Exit.OK


def _reassign(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        approval_id = approval_id_of(asked, arguments)
        request = pb.ReassignApprovalRequest(
            approval_id=approval_id,
            digest=_digest(asked, arguments, approval_id),
            gate=arguments.gate,
            roles=list(dict.fromkeys(arguments.roles)),
            reason=arguments.reason,
        )
        response = asked.client.call(asked.client.approvals.ReassignApproval, request)
        if not response.HasField("pending_act"):
            _print(asked.output, response.approval)
            return Exit.OK
        if asked.output.is_json:
            asked.output.document(plain(response.pending_act))
            return Exit.PENDING
        return say_pending(asked.output, response.pending_act)


def _get(asked: Session, approval_id: str) -> Approval:
    request = pb.GetApprovalRequest(approval_id=approval_id)
    return asked.client.call(asked.client.approvals.GetApproval, request).approval


def _digest(asked: Session, arguments: argparse.Namespace, approval_id: str) -> str:
    return str(arguments.digest or _get(asked, approval_id).digest)


def _seen_digest(asked: Session, arguments: argparse.Namespace, approval_id: str) -> str:
    """Returns the digest of a proposal that the caller has seen: named with --digest, or shown here and confirmed."""
    if arguments.digest:
        return str(arguments.digest)
    approval = _get(asked, approval_id)
    if not sys.stdin.isatty():
        raise CommandError(
            f"a yes needs the digest of what you saw: look at it with handrail approval show {approval.approval_id}, "
            "then repeat this command with --digest",
            Exit.USAGE,
        )
    with redirect_stdout(sys.stderr):  # the standard output is the vote's
        _print(Output("table"), approval)
        print("Vote yes? [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("not voted")
    return approval.digest


def _voted(output: Output, approval: Approval) -> None:
    if output.is_json:
        _print(output, approval)
    else:
        output.text(f"{approval.approval_id} is {approval_status(approval)} ({votes(approval)})")


def _print(output: Output, approval: Approval) -> None:
    if output.is_json:
        output.document(_document(approval))
        return
    output.fields(
        [
            ("approval", approval.approval_id),
            ("flow", approval.flow_id),
            ("type", approval.flow_type),
            ("status", approval_status(approval)),
            ("proposed by", f"{approval.agent} in step {approval.step}"),
            ("asked", time(approval.request_time)),
            ("expires", time(approval.expire_time)),
            ("votes", votes(approval)),
            ("digest", approval.digest),
            ("proposal", approval.type),
            ("data", _data(approval)),
        ]
    )
    output.text("")
    output.table(
        ("GATE", "ROLES", "QUORUM", "NOT", "WHY"),
        [
            (g.gate, ", ".join(g.roles), g.quorum, g.requester if g.not_the_requester else "", g.reason)
            for g in approval.gates
        ],
    )


def _data(approval: Approval) -> str:
    data = _opened(approval)
    data.pop("@type", None)
    return json_text(data)


def _opened(approval: Approval) -> dict[str, object]:
    """Returns the JSON of the proposal, sorted: a Struct has no order, and arrives in a different one each time."""
    opened: dict[str, object] = json.loads(json.dumps(MessageToDict(approval.data_json), sort_keys=True))
    return opened


def _document(approval: Approval) -> dict[str, object]:
    """Returns the approval as JSON; the server has opened the proposal already."""
    without = Approval()
    without.CopyFrom(approval)
    without.ClearField("data")
    without.ClearField("data_json")
    return {**MessageToDict(without), "data": _opened(approval)}
