"""`handrail template replay`: what a changed template would have done to recorded flows."""

from __future__ import annotations

import argparse
import sys
import time as clock
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from google.protobuf.message import Message

from handrail.cli.arguments import CALLER, Parsers, add_settings, since
from handrail.cli.enum_words import word
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.output import Output
from handrail.cli.session import Session, plain, session
from handrail.cli.templates import findings_of, needed, read_contracts, read_template, refuse
from handrail.mesh.wire.envelope import timestamp
from handrail.v1 import template_service_pb2 as pb
from handrail.v1.decision_pb2 import RuleAction

_MOST = 10_000
_REFUSED = "(TEMPLATE_REFUSED)"
_BAR = 30
_OUTCOMES = (
    ("needed approval", "needed_approval"),
    ("escalated", "escalated"),
    ("compensated", "compensated"),
    ("failed", "failed"),
    ("completed early", "completed"),
)


def fill_replay(verbs: Parsers) -> None:
    """Adds the verb."""
    replay = verbs.add_parser(
        "replay",
        help="try a changed template's gates and rules on recorded flows",
        description="Evaluate the gates and rules of a template on recorded flows, and compare with what the "
        "versions of those flows do. Nothing is stored, and nothing is changed.",
    )
    replay.add_argument("file", type=Path, metavar="FILE", help="template in YAML; not necessarily stored")
    replay.add_argument(
        "--contracts",
        metavar="IMAGE",
        help="descriptors of the messages, as for `template check` [default: those stored with the flow type]",
    )
    moment = "a time such as 2030-01-31T08:00:00Z, or how long ago: 15m, 24h, 7d"
    replay.add_argument("--since", type=since, required=True, metavar="TIME", help=f"flows that started from {moment}")
    replay.add_argument(
        "--until", type=since, metavar="TIME", help="flows that started before this time [default: now]"
    )
    replay.add_argument(
        "--filter",
        default="",
        metavar="FILTER",
        help="only flows that pass it, as in 'status = FAILED'; needs visibility",
    )
    replay.add_argument(
        "--limit", type=_limit, default=100, metavar="N", help="maximum number of differences to list [default 100]"
    )
    add_settings(replay, CALLER)
    replay.set_defaults(run=_replay)


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= _MOST):
        raise argparse.ArgumentTypeError(f'"{text}" must be a whole number from 1 to {_MOST}')
    return int(text)


def _replay(arguments: argparse.Namespace) -> Exit:
    request = pb.ReplayPolicyRequest(
        template=read_template(arguments.file),
        since=timestamp(arguments.since),
        max_differences=arguments.limit,
        filter=arguments.filter,
    )
    if arguments.until is not None:
        if arguments.until <= arguments.since:
            raise CommandError("--until must be later than --since", Exit.USAGE)
        request.until.CopyFrom(timestamp(arguments.until))
    with session(arguments) as asked:
        if arguments.contracts:
            contracts = read_contracts(arguments.contracts)
            refuse(asked.output, arguments.file, findings_of(arguments.file, contracts))
            request.descriptors = needed(request.template, contracts)
        try:
            differences, summary = _collected(asked, request)
        except CommandError as error:
            raise error if arguments.contracts else _advised(error, request.template.name) from None
        if asked.output.is_json:
            listed: list[Message] = list(differences)
            asked.output.document({"summary": plain(summary), "differences": [plain(each) for each in listed]})
        else:
            _print(asked.output, request.template.name, summary, differences)
    return Exit.OK


def _advised(error: CommandError, flow_type: str) -> CommandError:
    """A refusal that may be about the stored contracts, with the flag that names others; any other error as it is."""
    if _REFUSED not in error.text:
        return error
    text = f"{error.text}; the messages are those stored with {flow_type}: name others with --contracts IMAGE"
    return CommandError(text, error.code)


def _collected(asked: Session, request: pb.ReplayPolicyRequest) -> tuple[list[pb.ReplayDifference], pb.ReplaySummary]:
    """Returns the differences and the summary of a replay, and shows its progress meanwhile."""
    differences = []
    client = asked.client
    with _progress_bar() as show:
        for response in client.stream(client.templates.ReplayPolicy, request):
            match response.WhichOneof("result"):
                case "progress":
                    show.update(response.progress)
                case "difference":
                    differences.append(response.difference)
                case "summary":
                    return differences, response.summary
    raise CommandError("the replay ended without its summary; retry", Exit.UNREACHABLE)


class _Bar:
    """A progress line on standard error that is overwritten; nothing if standard error is not a terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._began = clock.monotonic()

    def update(self, progress: pb.ReplayProgress) -> None:
        """Shows the progress."""
        if self._shown:
            done = round(progress.share * _BAR)
            rate = progress.flows / max(0.001, clock.monotonic() - self._began)
            print(
                f"\r[{'#' * done}{'.' * (_BAR - done)}] {progress.share:4.0%} read, {progress.flows:,} flows, "
                f"{rate:,.0f} flows/s  ",
                end="",
                file=sys.stderr,
                flush=True,
            )

    def end(self) -> None:
        """Clears the line."""
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


@contextmanager
def _progress_bar() -> Iterator[_Bar]:
    bar = _Bar()
    try:
        yield bar
    finally:
        bar.end()


def _print(output: Output, flow_type: str, summary: pb.ReplaySummary, differences: list[pb.ReplayDifference]) -> None:
    output.text(
        f"{summary.flows:,} {flow_type} flows, {summary.messages:,} messages: {summary.flows_differing:,} flows would "
        f"have gone differently, in {summary.differences:,} verdicts"
    )
    if not summary.flows:
        return
    print()
    rows = [(name, getattr(summary.then, field), getattr(summary.now, field)) for name, field in _OUTCOMES]
    output.table(("FLOWS THAT", "THEN", "NOW"), rows)
    if summary.gates:
        print()
        output.table(
            ("GATE ASKS", "THEN", "NOW", "NOT EVALUATED THEN", "NOW"),
            [(g.gate, g.asked_then, g.asked_now, g.unevaluated_then, g.unevaluated_now) for g in summary.gates],
        )
    if summary.rules:
        print()
        output.table(
            ("RULE TRIPS", "CONSEQUENCE", "THEN", "NOW", "NOT EVALUATED THEN", "NOW"),
            [
                (r.rule, _action(r.action), r.tripped_then, r.tripped_now, r.unevaluated_then, r.unevaluated_now)
                for r in summary.rules
            ],
        )
    if summary.unevaluated:
        print()
        output.table(
            ("NOT EVALUATED", "THEN", "NOW", "WHY"),
            [(each.gate or each.rule, each.then, each.now, each.error) for each in summary.unevaluated],
        )
    if differences:
        print()
        for each in differences:
            _print_difference(output, each)
    if len(differences) < summary.differences:
        output.text(f"{summary.differences - len(differences):,} more differences; --limit shows more")


def _print_difference(output: Output, difference: pb.ReplayDifference) -> None:
    what = f"gate {difference.gate}" if difference.gate else f"rule {difference.rule}"
    output.text(f"{what}: {_verdict(difference.then)} -> {_verdict(difference.now)} at {difference.type}")
    output.text(f"    {difference.reason}")
    output.text(f"    recorded: {difference.recorded}; handrail flow show {difference.flow_id}")


def _verdict(value: pb.PolicyVerdict.ValueType) -> str:
    return word(pb.PolicyVerdict.Name(value), "POLICY_VERDICT_").lower().replace("_", " ")


def _action(value: RuleAction.ValueType) -> str:
    return word(RuleAction.Name(value), "RULE_ACTION_")
