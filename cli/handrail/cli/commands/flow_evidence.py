"""`handrail flow evidence|verify`: all that is recorded of a flow as one file, and whether such a file is unchanged."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from handrail.cli.arguments import CALLER, Parsers, add_settings, settings_of
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.flow_names import add_flow, flow_id_of
from handrail.cli.output import Output
from handrail.cli.session import Session, session
from handrail.mesh import settings as table
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.identity_service_pb2 import WhoAmIRequest

if TYPE_CHECKING:
    from handrail.v1.template_pb2 import StoredTemplate

_PAGE = 500


def add(verbs: Parsers) -> None:
    """Adds the parsers."""
    evidence = verbs.add_parser("evidence", help="write all that is recorded of a flow to one file, for an auditor")
    add_flow(evidence)
    evidence.add_argument("-o", "--to", required=True, type=Path, metavar="FILE", help="the file, which must not exist")
    add_settings(evidence, CALLER)
    evidence.set_defaults(run=_evidence)
    check = verbs.add_parser("verify", help="check that such a file is unchanged; it asks nobody")
    check.add_argument("file", type=Path, metavar="FILE", help="a file that flow evidence or the console wrote")
    add_settings(check, [table.OUTPUT])
    check.set_defaults(run=_verify)


def _evidence(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        flow_id = flow_id_of(asked, arguments)
        path: Path = arguments.to
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise CommandError(f"{path} exists: evidence is not written over a file; name another one") from None
        except OSError as error:
            raise CommandError(f"{path} can't be written: {error.strerror}") from None
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(_lines(asked, flow_id))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return _report(asked.output, path)


def _lines(asked: Session, flow_id: str) -> Iterator[bytes]:
    # Imported on demand: other verbs need no contracts.
    from handrail.analysis.evidence import Export, Writer

    flow = asked.client.call(asked.client.flows.GetFlow, pb.GetFlowRequest(flow_id=flow_id)).flow
    who = asked.client.call(asked.client.identity.WhoAmI, WhoAmIRequest()).subject
    writer = Writer(flow, _templates(asked, flow), Export(who, datetime.now(UTC), asked.client.address))
    yield from writer.begin()
    request = pb.ListFlowEventsRequest(flow_id=flow_id, page_size=_PAGE)
    while True:
        page = asked.client.call(asked.client.flows.ListFlowEvents, request)
        yield from writer.messages(page.events)
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    if not writer.is_whole:
        raise CommandError(f"the newest messages of flow {flow_id} can't be read yet; try again", Exit.UNREACHABLE)
    yield from writer.end()


def _templates(asked: Session, flow: pb.Flow) -> list[StoredTemplate]:
    """The versions that the flow ran on; those that can't be read are left out, and the file says so."""
    from handrail.analysis.evidence import versions_of

    found = []
    for version in versions_of(flow):
        try:
            found.append(asked.template(flow.flow_type, version))
        except CommandError as error:
            if error.code is not Exit.NOT_FOUND:
                raise
    return found


def _verify(arguments: argparse.Namespace) -> Exit:
    return _report(Output(settings_of(arguments).value(table.OUTPUT)), arguments.file)


def _report(output: Output, path: Path) -> Exit:
    """Checks a file, and says what it is about. Raises CommandError if it was changed, or can't be read."""
    from handrail.analysis.evidence import EvidenceError, lines_of, verify

    try:
        with path.open("rb") as file:
            found = verify(lines_of(file))
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror}") from None
    except EvidenceError as error:
        raise CommandError(f"{path} is not what was exported: {error}") from None
    facts: dict[str, object] = {
        "flow": found.flow_id,
        "type": f"{found.flow_type} version {found.version}",
        "status": found.status.removeprefix("FLOW_STATUS_"),
        "messages": found.messages,
        "exported by": found.by,
        "exported": found.time,
        "withheld": "; ".join(found.withheld),
        "sha256": found.sha256,
    }
    if output.is_json:
        output.document(facts | {"withheld": found.withheld})
    else:
        output.fields([*facts.items()])
        output.remark(f"handrail: {path} is unchanged since it was exported, if its sha256 is the one noted then")
    return Exit.OK
