"""`handrail act`: what one person asked for and another has to confirm."""

from __future__ import annotations

import argparse

from handrail.cli.arguments import CALLER, Parsers, add_flow_type, add_request_id, add_settings, days
from handrail.cli.commands.template_activate import RELOAD
from handrail.cli.enum_words import act_status, act_words, status_of
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.listing import add_page_arguments, add_scan, document, remark
from handrail.cli.output import Output, time
from handrail.cli.pending import say_pending
from handrail.cli.session import Session, plain, session
from handrail.v1 import act_service_pb2 as pb
from handrail.v1.act_pb2 import Act, PendingAct
from handrail.v1.template_pb2 import InstallationPolicy


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)

    listing = verbs.add_parser("list", help="list what waits for a second person, oldest first")
    add_flow_type(listing, "only flows of this type")
    listing.add_argument("--all", action="store_true", help="include what no longer waits")
    add_page_arguments(listing)
    add_scan(listing)
    add_settings(listing, CALLER)
    listing.set_defaults(run=_list)

    show = _verb(verbs, "show", "show an act, and what a version that it moves to weakens")
    show.set_defaults(run=_show)

    confirm = _verb(verbs, "confirm", "confirm an act of another person: it is done")
    confirm.add_argument(
        "--digest",
        default="",
        help="confirm only if the act has this digest [default: its current one, unless there are warnings]",
    )
    confirm.add_argument(
        "--break-glass",
        default="",
        metavar="REASON",
        help="do it without a second person, and say why; needs the role breakglass, and alerts",
    )
    add_request_id(confirm)
    confirm.set_defaults(run=_confirm)

    withdraw = _verb(verbs, "withdraw", "end an act undone")
    withdraw.add_argument("--reason", required=True, help="the reason, for people; it is recorded")
    add_request_id(withdraw)
    withdraw.set_defaults(run=_withdraw)

    policy = verbs.add_parser("policy", help="show or change what nobody does to templates alone")
    policy.add_argument(
        "--require", choices=("activate", "nothing"), help="activate: another person has to confirm each activation"
    )
    policy.add_argument("--within", type=days, metavar="DURATION", help="how long the other person has [default 24h]")
    policy.add_argument("--reason", default="", help="the reason, for people; it is recorded")
    add_request_id(policy)
    add_settings(policy, CALLER)
    policy.set_defaults(run=_policy)


def _verb(verbs: Parsers, name: str, text: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=f"{text[:1].upper()}{text[1:]}.")
    parser.add_argument("act_id", metavar="ACT", help="act id")
    add_settings(parser, CALLER)
    return parser


def _list(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        request = pb.ListActsRequest(
            flow_type=arguments.flow_type,
            include_closed=arguments.all,
            page_token=arguments.page_token,
            scan=arguments.scan,
        )
        method = asked.client.acts.ListActs
        found = asked.client.indexed(method, request, items=lambda page: page.acts, limit=arguments.limit)
        if asked.output.is_json:
            asked.output.document({"acts": [plain(act) for act in found.items], **document(found)})
            return Exit.OK
        asked.output.table(
            ("ACT", "OF", "WHAT", "STATUS", "BY", "EXPIRES", "REASON"),
            [_row(act) for act in found.items],
            empty="Nothing waits for a second person.",
        )
        remark(asked.output, found)
    return Exit.OK


def _row(act: PendingAct) -> tuple[object, ...]:
    about = f"{act.flow_type} {act.flow_id}".strip()
    return act.act_id, about, act.summary, act_status(act), act.by, time(act.expire_time), act.reason


def _show(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        _print(asked.output, _get(asked, arguments.act_id))
    return Exit.OK


def _confirm(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        request = pb.ConfirmActRequest(
            act_id=arguments.act_id, digest=_digest(asked, arguments), break_glass_reason=arguments.break_glass
        )
        response = asked.client.call(asked.client.acts.ConfirmAct, request)
        _settled(asked.output, response.act)
        if response.HasField("flow") and not asked.output.is_json:
            asked.output.text(f"{response.flow.flow_id} is {status_of(response.flow)}")
        if response.activated.permissions_changed and not asked.output.is_json:
            asked.output.text(RELOAD)
    return Exit.OK


def _withdraw(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        request = pb.WithdrawActRequest(act_id=arguments.act_id, reason=arguments.reason)
        _settled(asked.output, asked.client.call(asked.client.acts.WithdrawAct, request).act)
    return Exit.OK


def _policy(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        if not arguments.require:
            _print_policy(asked.output, asked.client.call(asked.client.acts.GetPolicy, pb.GetPolicyRequest()).policy)
            return Exit.OK
        if not arguments.reason:
            raise CommandError("--reason is required: it is recorded with the policy", Exit.USAGE)
        request = pb.SetPolicyRequest(reason=arguments.reason)
        if arguments.require == "activate":
            request.require_two.append(Act.ACT_ACTIVATE)
        if arguments.within is not None:
            request.confirm_within.FromTimedelta(arguments.within)
        response = asked.client.call(asked.client.acts.SetPolicy, request)
        if not response.HasField("pending_act"):
            _print_policy(asked.output, response.policy)
            return Exit.OK
        if asked.output.is_json:
            asked.output.document(plain(response))
            return Exit.PENDING
        return say_pending(asked.output, response.pending_act)


def _print_policy(output: Output, policy: InstallationPolicy) -> None:
    if output.is_json:
        output.document(plain(policy))
        return
    named = ", ".join(Act.Name(act).removeprefix("ACT_") for act in policy.require_two)
    output.text(f"two persons: {named}" if named else "one person does everything to templates")
    if policy.by:
        output.text(f"set by {policy.by} at {time(policy.time)}: {policy.reason}")


def _digest(asked: Session, arguments: argparse.Namespace) -> str:
    """Returns the digest to confirm. What is weakened has to be read first: its digest is not taken unseen."""
    if arguments.digest:
        return str(arguments.digest)
    act = _get(asked, arguments.act_id)
    if act.warnings:
        raise CommandError(
            f"{act.summary}: {' '.join(act.warnings)} To confirm that, name what you read: handrail act confirm "
            f"{act.act_id} --digest {act.digest}"
        )
    return act.digest


def _get(asked: Session, act_id: str) -> PendingAct:
    return asked.client.call(asked.client.acts.GetAct, pb.GetActRequest(act_id=act_id)).act


def _settled(output: Output, act: PendingAct) -> None:
    if output.is_json:
        _print(output, act)
    else:
        output.text(f"{act.act_id} is {act_status(act)} by {act.settled_by}: {act.summary}")


def _print(output: Output, act: PendingAct) -> None:
    if output.is_json:
        output.document(plain(act))
        return
    output.fields(
        [
            ("act", act.act_id),
            ("what", act.summary),
            ("named", act_words(act)),
            ("flow", act.flow_id),
            ("type", act.flow_type),
            ("status", act_status(act)),
            ("by", act.by),
            ("reason", act.reason),
            ("asked", time(act.request_time)),
            ("expires", time(act.expire_time)),
            ("settled by", act.settled_by),
            ("settled", time(act.settle_time)),
            ("because", act.settle_reason),
            ("digest", act.digest),
        ]
    )
    for warning in act.warnings:
        output.text(f"warning: {warning}")
