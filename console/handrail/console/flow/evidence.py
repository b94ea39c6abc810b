"""The route of a flow's evidence: one file with all that is recorded of it and that this person may see."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import BinaryIO

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from handrail.analysis.evidence import Export, Writer, versions_of
from handrail.console.coordinator import CallFailed
from handrail.console.web.console import Console, console_of, now, signed_in
from handrail.console.web.sessions import Session
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.template_pb2 import StoredTemplate
from handrail.v1.template_service_pb2 import GetTemplateRequest

LARGEST = 512 << 20
"""The most bytes of a file, which is on the disk of the console until it is sent."""

_AT_ONCE = asyncio.Semaphore(4)
"""So many files are written and sent at the same time."""

_PEOPLE: set[str] = set()
"""For whom: one person, who may take a file as slowly as the patience lasts, keeps no place from others."""

_PATIENCE = timedelta(minutes=10)
"""How long a browser may take for a file."""

_PAGE = 500
_CHUNK = 1 << 16
_ONE = "You download evidence just now. Wait until your browser has it."
_BUSY = "Others download evidence just now. Try again in a moment."
_TOO_LARGE = "The evidence of this flow is too large for the console. Use handrail flow evidence."
_LAGGING = "The newest messages of this flow can't be read yet. Try again in a moment."


async def evidence(request: Request) -> Response:
    """GET /evidence/{flow_id}."""
    session, console = signed_in(request), console_of(request)
    flow_id = request.path_params["flow_id"]
    if session.subject in _PEOPLE:
        raise HTTPException(503, _ONE)
    if _AT_ONCE.locked():
        raise HTTPException(503, _BUSY)
    try:
        file = tempfile.TemporaryFile(prefix="evidence-")  # noqa: SIM115  # the response closes it
    except OSError as error:
        raise _no_room(error) from None
    await _AT_ONCE.acquire()
    _PEOPLE.add(session.subject)
    try:
        await _write(file, console, session, flow_id)
    except BaseException:
        _close(file, session.subject)
        raise
    return _Download(file, f"{flow_id}.evidence.json", session.subject)


class _Download(Response):
    """Sends a file to a person, and closes it."""

    def __init__(self, file: BinaryIO, name: str, subject: str) -> None:
        size = file.tell()
        file.seek(0)
        headers = {"content-disposition": f'attachment; filename="{name}"', "content-length": str(size)}
        super().__init__(headers=headers, media_type="application/json")
        self._file = file
        self._subject = subject

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the file piece by piece, as fast as it is taken."""
        try:
            async with asyncio.timeout(_PATIENCE.total_seconds()):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                while chunk := await asyncio.to_thread(self._file.read, _CHUNK):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
        finally:
            _close(self._file, self._subject)


def _close(file: BinaryIO, subject: str) -> None:
    _PEOPLE.discard(subject)
    _AT_ONCE.release()
    # On a full disk, closing tries to write once more what is given up here.
    with suppress(OSError):
        file.close()


async def _write(file: BinaryIO, console: Console, session: Session, flow_id: str) -> None:
    to = console.coordinator
    flow = (await to.call(to.flows.GetFlow, pb.GetFlowRequest(flow_id=flow_id), token=session.token)).flow
    templates = await _templates(console, session, flow)
    export = Export(session.subject, now(), console.options.coordinator)
    # Rendering a page takes a while; others' pages go on meanwhile.
    writer = await asyncio.to_thread(Writer, flow, templates, export)
    await asyncio.to_thread(_put, file, writer.begin())
    asked = pb.ListFlowEventsRequest(flow_id=flow_id, page_size=_PAGE)
    while True:
        # A long flow takes a while: the token of the session may have been renewed.
        page = await to.call(to.flows.ListFlowEvents, asked, token=session.token)
        await asyncio.to_thread(_put, file, writer.messages(page.events))
        asked.page_token = page.next_page_token
        if not asked.page_token:
            break
    if not writer.is_whole:
        raise HTTPException(503, _LAGGING)
    await asyncio.to_thread(_put, file, writer.end())


def _put(file: BinaryIO, lines: Iterable[bytes]) -> None:
    try:
        file.writelines(lines)
        file.flush()
    except OSError as error:
        raise _no_room(error) from None
    if file.tell() > LARGEST:
        raise HTTPException(413, _TOO_LARGE)


def _no_room(error: OSError) -> HTTPException:
    return HTTPException(503, f"The console can't write its file: {error.strerror}. Use handrail flow evidence.")


async def _templates(console: Console, session: Session, flow: pb.Flow) -> list[StoredTemplate]:
    """The versions that the flow ran on; those that this person can't read are left out, and the file says so."""
    to, found = console.coordinator, []
    for version in versions_of(flow):
        asked = GetTemplateRequest(name=flow.flow_type, version=version)
        try:
            answer = await to.call(to.templates.GetTemplate, asked, token=session.token)
        except CallFailed as error:
            if error.reason != "TEMPLATE_NOT_FOUND":
                raise
        else:
            found.append(answer.stored)
    return found
