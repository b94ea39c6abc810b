"""`handrail flow divergences`: what agents did that the templates do not foresee, one by one or counted."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from handrail.cli.arguments import CALLER, Parsers, add_settings, since
from handrail.cli.enum_words import divergence
from handrail.cli.exit_codes import Exit
from handrail.cli.listing import add_list_arguments, as_of_document, as_of_text, document, fill_request, remark
from handrail.cli.output import time
from handrail.cli.session import Session, plain, session
from handrail.cli.terminal import Id
from handrail.v1 import flow_service_pb2 as pb

_KEYS: dict[str, Callable[[pb.DivergenceCount], str]] = {
    "agent": lambda count: count.agent,
    "version": lambda count: f"{count.flow_type}@{count.template_version}",
    "kind": lambda count: divergence(count.kind),
}


def add(verbs: Parsers) -> None:
    """Adds the parser."""
    parser = verbs.add_parser(
        "divergences", help="list what agents did that the templates do not foresee, newest first"
    )
    parser.add_argument("--flow-type", default="", metavar="TYPE", help="only in flows of this type")
    parser.add_argument("--agent", default="", help="only by this agent")
    parser.add_argument("--since", type=since, metavar="WHEN", help="omit older ones: 24h, or 2026-11-22T21:00:00Z")
    parser.add_argument(
        "--by", action="append", choices=_KEYS, help="count them by agent, template version or kind; may be repeated"
    )
    add_list_arguments(parser, orders="time")
    add_settings(parser, CALLER)
    parser.set_defaults(run=_divergences)


def _divergences(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        if arguments.by:
            _count(asked, arguments)
        else:
            _list(asked, arguments)
    return Exit.OK


def _list(asked: Session, arguments: argparse.Namespace) -> None:
    method = asked.client.flows.ListDivergences
    found = asked.client.indexed(
        method, _request(arguments), items=lambda page: page.divergences, limit=arguments.limit
    )
    if asked.output.is_json:
        asked.output.document({"divergences": [plain(each) for each in found.items], **document(found)})
        return
    asked.output.table(
        ("TIME", "AGENT", "KIND", "TEMPLATE", "FLOW", "AT", "TYPE", "WHAT"),
        [(time(each.divergence.time), *_row(each)) for each in found.items],
        empty="No divergences.",
    )
    remark(asked.output, found)


def _row(each: pb.ListedDivergence) -> tuple[object, ...]:
    seen = each.divergence
    version = f"{each.flow_type}@{seen.template_version}"
    return seen.agent, divergence(seen.kind), version, Id(each.flow_id), seen.sequence, seen.type, seen.text


def _count(asked: Session, arguments: argparse.Namespace) -> None:
    request = _request(arguments, count_only=True)
    counted = asked.client.indexed(asked.client.flows.ListDivergences, request, items=lambda page: page.counts)
    by = list(dict.fromkeys(arguments.by))
    counts = added_up(counted.items, by)
    if asked.output.is_json:
        covered = {} if counted.as_of is None else {"asOf": as_of_document(counted.as_of)}
        asked.output.document(
            {"counts": [{**dict(zip(by, key, strict=True)), **_counted(count)} for key, count in counts], **covered}
        )
        return
    asked.output.table(
        (*map(str.upper, by), "COUNT", "LAST", "IN FLOW", "WHAT"),
        [
            (
                *key,
                count.count,
                time(count.example.divergence.time),
                Id(count.example.flow_id),
                count.example.divergence.text,
            )
            for key, count in counts
        ],
        empty="No divergences.",
    )
    if counted.as_of is not None:
        asked.output.remark(as_of_text(counted.as_of))


def _counted(count: pb.DivergenceCount) -> dict[str, object]:
    return {"count": count.count, "example": plain(count.example)}


def added_up(
    counts: Iterable[pb.DivergenceCount], by: Sequence[str]
) -> list[tuple[tuple[str, ...], pb.DivergenceCount]]:
    """Sums the counts of all pages by these keys, the largest first; each example is the newest one."""
    total: dict[tuple[str, ...], pb.DivergenceCount] = {}
    for count in counts:
        key = tuple(_KEYS[each](count) for each in by)
        known = total.setdefault(key, pb.DivergenceCount(example=count.example))
        known.count += count.count
        if count.example.divergence.sequence > known.example.divergence.sequence:
            known.example.CopyFrom(count.example)
    return sorted(total.items(), key=lambda pair: -pair[1].count)


def _request(arguments: argparse.Namespace, *, count_only: bool = False) -> pb.ListDivergencesRequest:
    request = pb.ListDivergencesRequest(flow_type=arguments.flow_type, agent=arguments.agent, count_only=count_only)
    fill_request(request, arguments)
    moment: datetime | None = arguments.since
    if moment is not None:
        request.since.FromDatetime(moment)
    return request
