"""`handrail flow watch`: prints a line for each event when it is stored."""

from __future__ import annotations

import argparse
import time as clock

from handrail.cli.arguments import CALLER, Parsers, add_settings
from handrail.cli.commands.flow_show import opened
from handrail.cli.enum_words import is_final, kind, status
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.flow_names import add_flow, flow_id_of
from handrail.cli.output import time
from handrail.cli.session import Session, plain, session
from handrail.mesh import settings as table
from handrail.mesh.printable import json_text
from handrail.v1 import flow_service_pb2 as pb

_PAUSE = 0.5


def add(verbs: Parsers) -> None:
    """Adds the parser."""
    parser = verbs.add_parser(
        "watch",
        help="print each event of a flow when it is stored",
        description="Print each event of a flow when it is stored, until the flow ends. After a lost connection it "
        "continues where it stopped; --timeout limits how long the coordinator may be unavailable.",
    )
    add_flow(parser)
    parser.add_argument("--after", type=int, default=0, metavar="SEQUENCE", help="only events after this sequence")
    parser.add_argument("--follow", action="store_true", help="continue after the end of the flow: it may be reopened")
    add_settings(parser, CALLER)
    parser.set_defaults(run=_watch)


def _watch(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        watch = _Watch(asked, arguments)
        patience = asked.settings.value(table.TIMEOUT).total_seconds()
        heard = clock.monotonic()
        while True:
            before = watch.sequence
            try:
                if watch.until_it_ends():
                    return Exit.OK
            except CommandError as error:
                if watch.sequence > before:
                    heard = clock.monotonic()
                if error.code is not Exit.UNREACHABLE or clock.monotonic() - heard > patience:
                    raise
            else:
                heard = clock.monotonic()
            # The server is draining or unavailable: another replica, or the same one, continues.
            clock.sleep(_PAUSE)


class _Watch:
    """What was printed so far, so that a new connection continues there."""

    def __init__(self, asked: Session, arguments: argparse.Namespace) -> None:
        self._asked = asked
        self._flow_id = flow_id_of(asked, arguments)
        self._follow: bool = arguments.follow
        self.sequence: int = arguments.after

    def until_it_ends(self) -> bool:
        """Prints events until the stream ends; returns whether the watch is finished."""
        client = self._asked.client
        request = pb.WatchFlowRequest(flow_id=self._flow_id, after_sequence=self.sequence)
        for response in client.stream(client.flows.WatchFlow, request):
            self.sequence = max(self.sequence, response.sequence)
            if response.HasField("event"):
                self._print(response)
            if is_final(response.status) and not self._follow and not self._more(response):
                return True
        return False

    def _more(self, response: pb.WatchFlowResponse) -> bool:
        """Tells whether later events are stored already: then this end is not the last word."""
        request = pb.GetFlowRequest(flow_id=self._flow_id)
        flow = self._asked.client.call(self._asked.client.flows.GetFlow, request).flow
        return flow.last_sequence > response.sequence

    def _print(self, response: pb.WatchFlowResponse) -> None:
        output = self._asked.output
        recorded = response.event
        if output.is_json:
            document = plain(pb.WatchFlowResponse(status=response.status, sequence=response.sequence))
            output.line({**document, "event": opened(self._asked, recorded)})
            return
        event = recorded.event
        data = self._asked.to_json(event.data, event.flow_type, event.template_version)
        data.pop("@type", None)
        void = f" void: {recorded.void_reason}" if recorded.void_reason else ""
        output.text(
            f"{time(recorded.time)} {recorded.sequence} {kind(recorded.kind):10} {recorded.agent:14} {recorded.type} "
            f"{json_text(data)}{void} [{status(response.status)}]"
        )
