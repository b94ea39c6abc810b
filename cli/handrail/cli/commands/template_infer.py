"""`handrail template infer`: proposes a template from recorded traffic, as YAML with the evidence in its comments."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import takewhile

from handrail.analysis.infer import Traffic, infer
from handrail.cli.arguments import CALLER, Parsers, add_settings, positive, since
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.listing import add_filter_arguments
from handrail.cli.session import Session, plain, session
from handrail.mesh.template.yaml_writer import to_text
from handrail.mesh.wire.envelope import Recorded, from_timestamp
from handrail.mesh.wire.subjects import Address, Kind
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.event_pb2 import Kind as KindView
from handrail.v1.event_pb2 import RecordedEvent

_DEFAULT_LIMIT = 500
_AT_ONCE = 8


def fill_infer(verbs: Parsers) -> None:
    """Adds the verb."""
    parser = verbs.add_parser("infer", help="propose a template from recorded traffic, as YAML")
    parser.add_argument("flow_type", metavar="TYPE", help="flow type")
    parser.add_argument(
        "--since", type=since, metavar="WHEN", help="only flows started since: 24h, or 2026-11-22T21:00:00Z"
    )
    parser.add_argument(
        "--limit",
        type=positive,
        default=_DEFAULT_LIMIT,
        metavar="N",
        help="at most N flows, newest first [default 500]",
    )
    add_filter_arguments(parser)
    add_settings(parser, CALLER)
    parser.set_defaults(run=_infer)


def _infer(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        flows = _flows(asked, arguments)
        if not flows:
            raise CommandError(f"flow type {arguments.flow_type} has no flow to infer a template from", Exit.NOT_FOUND)
        # Only the contracts are used, to read the messages; the stored template's content is ignored.
        contracts = asked.contracts(arguments.flow_type, max(flow.template_version for flow in flows))
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            traffic = list(threads.map(lambda flow: _traffic(asked, flow), flows))
        inferred = infer(arguments.flow_type, traffic, contracts)
        if asked.output.is_json:
            asked.output.document(
                {
                    "template": plain(inferred.template),
                    "notes": {path: list(notes) for path, notes in inferred.notes.items()},
                    "findings": [plain(found) for found in inferred.findings],
                }
            )
        else:
            print(to_text(inferred.template, inferred.notes), end="")
    return Exit.OK


def _flows(asked: Session, arguments: argparse.Namespace) -> list[pb.Flow]:
    """Returns the newest flows of the type, as far back as requested."""
    begun: datetime | None = arguments.since
    request = pb.ListFlowsRequest(flow_type=arguments.flow_type, filter=arguments.filter, scan=arguments.scan)
    newest_first = asked.client.listed(
        asked.client.flows.ListFlows, request, items=lambda page: page.flows, limit=arguments.limit
    )
    return list(takewhile(lambda flow: begun is None or from_timestamp(flow.start_time) >= begun, newest_first))


def _traffic(asked: Session, flow: pb.Flow) -> Traffic:
    request = pb.ListFlowEventsRequest(flow_id=flow.flow_id)
    events = list(asked.client.listed(asked.client.flows.ListFlowEvents, request, items=lambda page: page.events))
    return Traffic(
        recorded=recorded(each for each in events if not each.void_reason),
        status=flow.status,
        left_out=recorded(each for each in events if each.void_reason and each.HasField("event")),
    )


def recorded(events: Iterable[RecordedEvent]) -> list[Recorded]:
    """Converts events of the API to recorded events."""
    return [
        Recorded(
            Address(
                each.event.flow_type,
                each.event.flow_id,
                Kind[KindView.Name(each.kind).removeprefix("KIND_")],
                each.agent,
                each.event.event_id,
                each.type,
            ),
            each.event,
            each.sequence,
            from_timestamp(each.time),
        )
        for each in events
    ]
