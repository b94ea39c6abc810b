"""`handrail verify`: checks from the streams alone whether an installation kept its promises."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from handrail.cli.arguments import CALLER, add_settings, settings_of
from handrail.cli.client import Client
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.output import Output
from handrail.cli.verify.acknowledged import Call, parse
from handrail.cli.verify.check import Check
from handrail.cli.verify.finding import Breach, Finding, counted
from handrail.cli.verify.installation import listed, shown, stored
from handrail.cli.verify.plan import read_plans
from handrail.cli.verify.waiting import FINAL, GRACE
from handrail.mesh import settings as table
from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.permissions import VIEWER
from handrail.mesh.setting_parsers import duration
from handrail.mesh.settings import bus_settings


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.description = (
        "Read the streams without the fold, and check the promises: nothing acknowledged is lost, "
        "nothing is stored twice, no flow hangs, nothing contradicts its template or the coordinator. Exits "
        "with 1 if it finds a breach. It writes nothing."
    )
    parser.add_argument("--history", type=Path, metavar="FILE", help="acknowledged calls, one JSON object per line")
    parser.add_argument(
        "--grace", type=_grace, default=GRACE, metavar="DURATION", help="how late anything due may be [default 2m]"
    )
    add_settings(parser, (*table.BROKER, *CALLER))
    parser.set_defaults(run=_verify)


def _grace(text: str) -> timedelta:
    try:
        return duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _verify(arguments: argparse.Namespace) -> Exit:
    settings = settings_of(arguments)
    calls = [] if arguments.history is None else _history(arguments.history)
    check = asyncio.run(read(bus_settings(settings, VIEWER)))
    with Client.of(settings) as client:
        findings = judge(check, client, calls=calls, grace=arguments.grace)
    _report(Output(settings.value(table.OUTPUT)), check, calls, findings)
    return Exit.FAILED if findings else Exit.OK


async def read(settings: BusSettings) -> Check:
    """Reads everything that the streams hold now."""
    async with await NatsBus.connect(settings) as bus:
        check = Check(read_plans([each async for each in stored(bus, "TEMPLATE")]))
        async for each in stored(bus, "FLOW"):
            check.take(each)
    return check


def judge(check: Check, client: Client, *, calls: Sequence[Call], grace: timedelta) -> list[Finding]:
    """Checks the streams, what callers were told, and what the coordinator says about the flows."""
    findings = [*check.judge(), *check.keep(calls)]
    said = list(listed(client))
    findings += check.compare(said)
    there = {flow.flow_id for flow in said}
    unlisted = "its first event is in the stream, but the coordinator does not list it"
    findings += [
        Finding(Breach.LOST, unlisted, account.flow_type, flow_id)
        for flow_id, account in check.accounts.items()
        if flow_id not in there
    ]
    unfinished = {flow.flow_id for flow in said if flow.status not in FINAL}
    waiting = list(shown(client, sorted(unfinished.union(check.open_flows))))
    findings += check.compare(waiting)
    findings += check.hung(waiting, now=datetime.now(UTC), grace=grace)
    return list(dict.fromkeys(findings))


def _history(path: Path) -> list[Call]:
    calls = []
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise CommandError(f"{path} can't be read: {reason}", Exit.USAGE) from None
    for number, line in enumerate(lines, start=1):
        try:
            calls.append(parse(line))
        except (ValueError, RecursionError) as error:
            raise CommandError(f"{path}, line {number}: {error}", Exit.USAGE) from None
    return calls


def _report(output: Output, check: Check, calls: Sequence[Call], findings: Sequence[Finding]) -> None:
    figures = {
        "messages": check.messages,
        "unreadable": check.unreadable,
        "flows": len(check.accounts),
        "open": len(check.open_flows),
        "not_judged": len(check.unsure),
        "acknowledged": sum(call.outcome == "ok" for call in calls),
    }
    breaches = {breach.value: number for breach, number in counted(findings).items()}
    if output.is_json:
        told = [{"breach": each.breach.value, "flow_type": each.flow_type, "flow_id": each.flow_id,
                 "sequence": each.sequence, "text": each.text} for each in findings]  # fmt: skip
        output.document({**figures, **breaches, "findings": told})
        return
    for each in findings:
        where = f"flow {each.flow_id}: " if each.flow_id else ""
        at = f" (at {each.sequence})" if each.sequence else ""
        output.text(f"{each.breach.upper()}  {where}{each.text}{at}")
    output.table(
        ("MESSAGES", "FLOWS", "OPEN", "NOT JUDGED", "ACKNOWLEDGED", *(each.upper() for each in breaches)),
        [
            (
                figures["messages"],
                figures["flows"],
                figures["open"],
                figures["not_judged"],
                figures["acknowledged"],
                *breaches.values(),
            )
        ],
    )
