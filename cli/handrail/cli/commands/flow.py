"""`handrail flow`: starts flows, shows them, intervenes."""

from __future__ import annotations

import argparse

from handrail.cli.arguments import CALLER, Parsers, add_flow_type, add_request_id, add_settings
from handrail.cli.commands import flow_act, flow_divergences, flow_evidence, flow_publish, flow_show, flow_watch
from handrail.cli.data import HELP, data_text
from handrail.cli.enum_words import status_of, word
from handrail.cli.exit_codes import Exit
from handrail.cli.listing import add_list_arguments, document, fill_request, remark
from handrail.cli.output import time
from handrail.cli.recent_flows import RecentFlow
from handrail.cli.session import plain, session
from handrail.cli.terminal import Id
from handrail.cli.watching import add_watch
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.decision_pb2 import FlowStatus

_STATUSES = tuple(word(name, "FLOW_STATUS_") for name in FlowStatus.keys()[1:])


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_start(verbs)
    _add_list(verbs)
    flow_show.add(verbs)
    flow_watch.add(verbs)
    flow_act.add(verbs)
    flow_publish.add(verbs)
    flow_divergences.add(verbs)
    flow_evidence.add(verbs)


def _add_start(verbs: Parsers) -> None:
    parser = verbs.add_parser("start", help="start a flow")
    parser.add_argument("flow_type", metavar="TYPE", help="flow type, the name of its template")
    parser.add_argument("--data", required=True, metavar="JSON", help=f"first event {HELP}")
    parser.add_argument(
        "--type", default="", metavar="NAME", help="full name of the first event, if the flow type has several"
    )
    parser.add_argument("--key", default="", help="business key (idempotency key): the same key returns the same flow")
    add_request_id(parser)
    add_settings(parser, CALLER)
    parser.set_defaults(run=_start)


def _start(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        starts_with = asked.template(arguments.flow_type).template.starts_with
        contracts = asked.contracts(arguments.flow_type)
        request = pb.StartFlowRequest(
            flow_type=arguments.flow_type,
            data=asked.payload(contracts, arguments.type, data_text(arguments.data), one_of=starts_with),
            key=arguments.key,
        )
        started = asked.client.call(asked.client.flows.StartFlow, request)
        asked.recent.add([RecentFlow(started.flow_id, arguments.flow_type)])
        if asked.output.is_json:
            asked.output.document(plain(started))
        else:
            asked.output.text(started.flow_id)
        if started.already_started:
            data = ", with other data, which stand" if started.different_data else ""
            asked.output.remark(f"handrail: flow {started.flow_id} was started before{data}")
    return Exit.OK


def _add_list(verbs: Parsers) -> None:
    parser = verbs.add_parser("list", help="list flows")
    add_flow_type(parser, "only flows of this type")
    parser.add_argument("--status", default="", type=str.upper, choices=_STATUSES, help="only flows with this status")
    add_list_arguments(parser, orders="started, updated, deadline or first_sequence")
    add_settings(parser, CALLER)
    add_watch(parser, _list)


def _list(arguments: argparse.Namespace) -> Exit:
    status = FlowStatus.Value(f"FLOW_STATUS_{arguments.status or 'UNSPECIFIED'}")
    with session(arguments) as asked:
        request = pb.ListFlowsRequest(flow_type=arguments.flow_type, status=status)
        fill_request(request, arguments)
        method = asked.client.flows.ListFlows
        found = asked.client.indexed(method, request, items=lambda page: page.flows, limit=arguments.limit)
        asked.recent.add(RecentFlow(each.flow_id, each.flow_type) for each in found.items)
        if asked.output.is_json:
            asked.output.document({"flows": [plain(flow) for flow in found.items], **document(found)})
        else:
            asked.output.table(
                ("FLOW", "TYPE", "KEY", "VERSION", "STATUS", "STARTED", "REASON"),
                [
                    (
                        *(Id(f.flow_id), f.flow_type, f.key, f.template_version),
                        *(status_of(f), time(f.start_time), f.status_reason),
                    )
                    for f in found.items
                ],
                empty="No flows.",
            )
            remark(asked.output, found)
    return Exit.OK
