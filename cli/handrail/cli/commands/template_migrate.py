"""`handrail template migrate`: moves running flows to another version, each with one recorded decision."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from handrail.cli.arguments import CALLER, Parsers, add_settings, positive
from handrail.cli.enum_words import is_final
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.listing import add_scan
from handrail.cli.output import Output
from handrail.cli.session import Session, session
from handrail.v1 import flow_service_pb2 as pb

_PAGE = 200
_EXAMPLES = 3


@dataclass(slots=True)
class _Account:
    """The result of a migration. `stay` lists by reason the flows that can't move; `over` ended before their turn,
    `pending` are the acts that another person has to confirm.
    """

    moved: list[str] = field(default_factory=list)
    over: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    stay: dict[str, list[str]] = field(default_factory=dict)

    def stays(self, flow_id: str, reason: str) -> None:
        self.stay.setdefault(reason, []).append(flow_id)

    def document(self, *, planned: bool) -> dict[str, object]:
        stay = [{"reason": reason, "flowIds": flow_ids} for reason, flow_ids in self.stay.items()]
        return {
            "canMove" if planned else "moved": self.moved,
            "over": self.over,
            "pending": self.pending,
            "stay": stay,
        }


def fill_migrate(verbs: Parsers) -> None:
    """Adds the verb."""
    migrate = verbs.add_parser("migrate", help="move running flows to another version, or show which can move")
    migrate.add_argument("name", metavar="NAME", help="flow type")
    migrate.add_argument("--to", type=positive, required=True, metavar="VERSION", help="stored version to move to")
    migrate.add_argument(
        "--from", dest="from_version", type=positive, default=0, metavar="VERSION", help="only flows on this version"
    )
    migrate.add_argument(
        "--plan", action="store_true", help="show which flows can move and why others can't; move none"
    )
    add_scan(migrate)
    migrate.add_argument("--reason", default="", help="the reason, for people; it is recorded with each flow")
    add_settings(migrate, CALLER)
    migrate.set_defaults(run=_migrate)


def _migrate(arguments: argparse.Namespace) -> Exit:
    if not arguments.plan and not arguments.reason:
        raise CommandError("--reason is required: it is recorded with each flow (or use --plan)", Exit.USAGE)
    with session(arguments) as asked:
        account = _plan(asked, arguments) if arguments.plan else _move_all(asked, arguments)
        if asked.output.is_json:
            asked.output.document(account.document(planned=arguments.plan))
        else:
            _print(asked.output, account, arguments)
    if account.stay:
        return Exit.FAILED
    return Exit.PENDING if account.pending else Exit.OK


def _plan(asked: Session, arguments: argparse.Namespace) -> _Account:
    account = _Account()
    for flow in _running(asked, arguments):
        if flow.reasons:
            account.stays(flow.flow_id, "; ".join(flow.reasons))
        else:
            account.moved.append(flow.flow_id)
    return account


def _move_all(asked: Session, arguments: argparse.Namespace) -> _Account:
    """Moves the flows one by one. A run that ended half-way can be repeated: moved flows are no longer in the plan."""
    account = _Account()
    for flow in _running(asked, arguments):
        _move(asked, arguments, flow, account)
        done = len(account.moved) + len(account.over) + len(account.pending)
        seen = done + sum(map(len, account.stay.values()))
        if seen % _PAGE == 0:
            print(f"{seen:,} checked, {len(account.moved):,} moved", file=sys.stderr, flush=True)
    return account


def _move(asked: Session, arguments: argparse.Namespace, flow: pb.MigrationPlan, account: _Account) -> None:
    request = pb.MigrateFlowRequest(flow_id=flow.flow_id, to_version=arguments.to, reason=arguments.reason)
    try:
        response = asked.client.call(asked.client.flows.MigrateFlow, request)
    except CommandError as error:
        if error.code is not Exit.FAILED:
            raise
        now = asked.client.call(asked.client.flows.GetFlow, pb.GetFlowRequest(flow_id=flow.flow_id)).flow
        if is_final(now.status):
            account.over.append(flow.flow_id)
        else:
            account.stays(flow.flow_id, "; ".join(flow.reasons) or error.text)
        return
    if response.HasField("pending_act"):
        account.pending.append(response.pending_act.act_id)
    else:
        account.moved.append(flow.flow_id)


def _running(asked: Session, arguments: argparse.Namespace) -> Iterator[pb.MigrationPlan]:
    request = pb.PlanMigrationRequest(
        flow_type=arguments.name,
        to_version=arguments.to,
        from_version=arguments.from_version,
        page_size=_PAGE,
        scan=arguments.scan,
    )
    return asked.client.listed(asked.client.flows.PlanMigration, request, items=lambda page: page.flows)


def _print(output: Output, account: _Account, arguments: argparse.Namespace) -> None:
    verb = "can move" if arguments.plan else "moved"
    output.text(f"{len(account.moved):,} {verb} to {arguments.name}@{arguments.to}")
    if account.over:
        output.text(f"{len(account.over):,} ended before their turn")
    if account.pending:
        output.text(f"{len(account.pending):,} wait for another person: handrail act list --type {arguments.name}")
    if account.stay:
        output.text(f"{sum(map(len, account.stay.values())):,} keep their version:")
        output.table(
            ("FLOWS", "WHY", "EXAMPLES"),
            [(len(ids), reason, ", ".join(ids[:_EXAMPLES])) for reason, ids in sorted(account.stay.items())],
        )
