"""Flows that left the stream: what was said of them then, and their messages, page by page, as the archive has them.

What is damaged is not served. What the index has not taken yet is found at the end of the verdicts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from sqlalchemy import Connection, select

from handrail.index.v1.index_service_pb2 import (
    ArchivedFlow,
    ArchivedMessage,
    GetArchivedFlowRequest,
    GetArchivedFlowResponse,
)
from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.visibility.archive.errors import Damaged, NoRecord
from handrail.visibility.archive.folder import Folder
from handrail.visibility.archive.reader import Reader
from handrail.visibility.archive.verdict import Verdict
from handrail.visibility.archive.verdict_log import numbered, verdict_of
from handrail.visibility.index import schema
from handrail.visibility.index.errors import index_error
from handrail.visibility.serve.flows import summary

log = logging.getLogger(__name__)

PAGE_BYTES = 2 << 20
"""The most bytes of the messages of a page; a larger message is a page of its own."""

_AT_ONCE = 8
"""Messages that are read at once, before the size of the page is looked at."""

_FRAMES = 8
"""Inflated frames that are kept: the messages of a flow are often close together."""

_NEWEST = 1_000
"""Verdicts that the index has not taken, and that are looked through."""


class _Place(NamedTuple):
    """A flow that left: what names it, and the number of its verdict."""

    first: int
    flow_type: str
    number: int


class ArchivedFlows:
    """Reads flows from an archive, whose index is asked for the place. Without an archive there are none."""

    def __init__(self, folder: Folder | None) -> None:
        self._folder = folder
        self._reader = None if folder is None else Reader(folder, frames=_FRAMES)
        self._looked_through: tuple[object, ...] = ()

    def answer(self, connection: Connection, request: GetArchivedFlowRequest) -> GetArchivedFlowResponse:
        """Returns a flow, and messages if the request asks for a page of them.

        Raises ARCHIVE_DAMAGED, and INDEX_UNAVAILABLE if the index is too far behind to tell.
        """
        if self._folder is None or self._reader is None:
            return GetArchivedFlowResponse()
        try:
            place = _chosen(self._places(self._folder, connection, request))
            if place is None:
                return GetArchivedFlowResponse()
            verdict = verdict_of(self._folder, place.number)
            answer = GetArchivedFlowResponse(flow=_shown(verdict))
            if request.HasField("page") and not verdict.erased:
                _add_page(answer, self._reader, [each for each in verdict.sequences if each > request.page.after])
            return answer
        except NoRecord as error:
            if error.erased:
                raise index_error("the flow is being erased; ask again shortly") from error
            raise _damaged(f"the archive is damaged: {error.text}, but a flow has it") from error
        except Damaged as error:
            raise _damaged(error.text) from error

    def _places(self, folder: Folder, connection: Connection, request: GetArchivedFlowRequest) -> list[_Place]:
        places = [*_known(connection, request)]
        taken = connection.execute(select(schema.position.c.verdicts)).scalar_one()
        state = (taken, *((each.name, each.stat().st_size) for each in sorted(folder.path.glob("*.verdicts"))))
        if state == self._looked_through:
            return places
        newest = list(islice(numbered(folder, after=taken), _NEWEST))
        if len(newest) == _NEWEST and not places:
            raise index_error("the index does not have all archived flows yet; ask again shortly")
        if not newest:
            self._looked_through = state
        found = (
            _Place(each.first, each.flow_type, number) for number, each in newest if each.flow_id == request.flow_id
        )
        return [*places, *(each for each in found if _is_wanted(each, request))]


def _known(connection: Connection, request: GetArchivedFlowRequest) -> Iterator[_Place]:
    """The flows with this id that left, as the index has them."""
    flow = schema.flow.c
    wanted = select(flow.first_sequence, flow.flow_type, flow.verdict).where(
        flow.flow_id == request.flow_id, flow.verdict.is_not(None)
    )
    for row in connection.execute(wanted):
        place = _Place(row.first_sequence, row.flow_type, row.verdict)
        if _is_wanted(place, request):
            yield place


def _is_wanted(place: _Place, request: GetArchivedFlowRequest) -> bool:
    return (
        (request.scope.every_type or place.flow_type in request.scope.flow_types)
        and request.flow_type in ("", place.flow_type)
        and request.first_sequence in (0, place.first)
    )


def _chosen(places: Sequence[_Place]) -> _Place | None:
    """The newest flow of the type that had this id first: what began later under the same id, in another type, hides
    nothing.
    """
    if not places:
        return None
    flow_type = min(places).flow_type
    return max(each for each in places if each.flow_type == flow_type)


def _shown(verdict: Verdict) -> ArchivedFlow:
    return ArchivedFlow(
        flow=summary(verdict.summary, archived=True),
        first_sequence=verdict.first,
        void=verdict.void,
        release=verdict.release,
        erased=verdict.erased,
    )


def _add_page(answer: GetArchivedFlowResponse, reader: Reader, sequences: Sequence[int]) -> None:
    """Adds messages until the page is full."""
    room = PAGE_BYTES
    for begin in range(0, len(sequences), _AT_ONCE):
        for record in reader.read_many(sequences[begin : begin + _AT_ONCE]):
            size = len(record.subject) + len(record.body)
            if size > room and answer.messages:
                answer.more = True
                return
            room -= size
            message = ArchivedMessage(sequence=record.sequence, subject=record.subject, body=record.body)
            message.time.FromNanoseconds(record.time_ns)
            answer.messages.append(message)


def _damaged(text: str) -> HandrailError:
    log.error("an archived flow can't be shown: %s", text)
    return HandrailError(ErrorReason.ERROR_REASON_ARCHIVE_DAMAGED, text)
