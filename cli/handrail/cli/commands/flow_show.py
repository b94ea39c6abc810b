"""`handrail flow show|events`: the current or a past state of a flow, and its events."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from handrail.cli.arguments import CALLER, Parsers, add_settings, moment, positive
from handrail.cli.enum_words import (
    act_status,
    approval_status,
    cause,
    choice_word,
    divergence,
    effect_status,
    halt_mode,
    kind,
    run_status,
    status_of,
)
from handrail.cli.exit_codes import Exit
from handrail.cli.flow_names import add_flow, flow_id_of
from handrail.cli.output import Output, time
from handrail.cli.session import Session, session
from handrail.cli.terminal import Id
from handrail.cli.watching import add_watch
from handrail.mesh.printable import json_text
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.event_pb2 import RecordedEvent


def add(verbs: Parsers) -> None:
    """Adds the parsers."""
    show = verbs.add_parser("show", help="show a flow, what it waits for, and from whom")
    add_flow(show)
    when = show.add_mutually_exclusive_group()
    when.add_argument("--as-of-sequence", type=positive, default=0, metavar="N", help="the flow at this sequence")
    when.add_argument(
        "--as-of-time", type=moment, default=None, metavar="TIME", help="the flow at this time: 2026-11-22T21:00:00Z"
    )
    add_settings(show, CALLER)
    add_watch(show, _show)
    events = verbs.add_parser("events", help="list the events of a flow, in order")
    add_flow(events)
    add_settings(events, CALLER)
    events.set_defaults(run=_events)


def _show(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        request = pb.GetFlowRequest(flow_id=flow_id_of(asked, arguments), as_of_sequence=arguments.as_of_sequence)
        if arguments.as_of_time is not None:
            request.as_of_time.CopyFrom(_stamp(arguments.as_of_time))
        flow = asked.client.call(asked.client.flows.GetFlow, request).flow
        if asked.output.is_json:
            asked.output.document(asked.to_json(flow, flow.flow_type, flow.template_version))
        else:
            print_flow(asked.output, flow)
    return Exit.OK


def print_flow(output: Output, flow: pb.Flow) -> None:
    """Prints a flow for people: its status, then its parts."""
    output.fields(
        [
            ("flow", flow.flow_id),
            ("key", flow.key),
            ("type", f"{flow.flow_type} version {flow.template_version}"),
            ("status", status_of(flow)),
            ("reason", flow.status_reason),
            ("halted", halt_mode(flow.halt_mode)),
            ("requester", flow.requester),
            ("started", time(flow.start_time)),
            ("updated", time(flow.update_time)),
            ("messages", flow.message_count),
            ("etag", flow.etag),
            ("archived", "yes: it left the stream, and nothing changes it" if flow.archived else ""),
        ]
    )
    _section(
        output,
        ("STEP", "AGENT", "STATUS", "ATTEMPT", "TRIGGERED", "ENDED", "LAST ERROR"),
        [
            (
                r.step,
                r.agent,
                run_status(r),
                f"{r.attempt}/{r.max_attempts}",
                time(r.trigger_time),
                time(r.end_time),
                r.last_error,
            )
            for r in flow.step_runs
        ],
    )
    _section(
        output,
        ("OWED", "BY", "UNTIL", "OTHERWISE"),
        [(e.what, e.by_agent or ", ".join(e.by_roles), time(e.due_time), e.otherwise) for e in flow.expectations],
    )
    _section(
        output,
        ("APPROVAL", "OF", "STATUS", "VOTES"),
        [(Id(a.approval_id), a.type, approval_status(a), votes(a)) for a in flow.approvals],
    )
    _section(
        output,
        ("ESCALATION", "CAUSE", "CHOICES", "REASON"),
        [(e.escalation_id, cause(e), ", ".join(map(choice_word, e.choices)), e.reason) for e in flow.escalations],
    )
    _section(
        output,
        ("ACT", "WHAT", "STATUS", "BY", "SETTLED BY"),
        [(a.act_id, a.summary, act_status(a), a.by, a.settled_by) for a in flow.acts],
    )
    _section(
        output,
        ("EFFECT", "STEP", "AGENT", "STATUS"),
        [(e.type, e.step, e.agent, effect_status(e)) for e in flow.effects],
    )
    _section(
        output,
        ("MOVED", "TO", "BY", "AT", "WHY"),
        [
            (f"version {m.from_version}", f"version {m.to_version}", m.by, f"{m.sequence} {time(m.time)}", m.reason)
            for m in flow.migrations
        ],
    )
    _section(
        output,
        ("DIVERGENCE", "OF", "AGENT", "AT", "WHAT"),
        [(divergence(d.kind), d.type, d.agent, d.sequence, d.text) for d in flow.divergences],
    )


def votes(approval: pb.Approval) -> str:
    """Lists who voted what: `anna yes, ben for cleo no`."""
    return ", ".join(f"{_voter(vote)} {'yes' if vote.approve else 'no'}" for vote in approval.votes)


def _voter(vote: pb.Vote) -> str:
    return f"{vote.voter} for {vote.on_behalf_of}" if vote.on_behalf_of else vote.voter


def _section(output: Output, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    listed = list(rows)
    if listed:
        output.text("")
        output.table(headers, listed)


def _events(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        request = pb.ListFlowEventsRequest(flow_id=flow_id_of(asked, arguments))
        is_archived = False

        def events(page: pb.ListFlowEventsResponse) -> Sequence[RecordedEvent]:
            nonlocal is_archived
            is_archived = page.archived
            return page.events

        found = list(asked.client.listed(asked.client.flows.ListFlowEvents, request, items=events))
        if asked.output.is_json:
            archived = {"archived": True} if is_archived else {}
            asked.output.document({**archived, "events": [opened(asked, recorded) for recorded in found]})
        else:
            asked.output.table(
                ("SEQUENCE", "TIME", "KIND", "AGENT", "STEP", "EVENT", "DATA"),
                [row(asked, recorded) for recorded in found],
            )
            if is_archived:
                asked.output.remark("handrail: the flow left the stream; these events are from the archive")
    return Exit.OK


def opened(asked: Session, recorded: RecordedEvent) -> object:
    """Returns a recorded event as JSON, with its domain message opened."""
    return asked.to_json(recorded, recorded.event.flow_type, recorded.event.template_version)


def row(asked: Session, recorded: RecordedEvent) -> tuple[object, ...]:
    """Returns a recorded event as a table row; a void event says why."""
    event = recorded.event
    data = asked.to_json(event.data, event.flow_type, event.template_version)
    data.pop("@type", None)
    void = f"void: {recorded.void_reason}; " if recorded.void_reason else ""
    step = f"{event.step}/{event.attempt}" if event.attempt else event.step
    return (
        recorded.sequence,
        time(recorded.time),
        kind(recorded.kind),
        recorded.agent,
        step,
        recorded.type,
        f"{void}{json_text(data)}",
    )


def _stamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
