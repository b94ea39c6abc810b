"""Flows that left FLOW, as visibility has them in its archive.

Few are read at a time, and none for long: a visibility that is slow, or gone, takes nothing from other calls.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from handrail.coordinator.lists.index import Index, unavailable
from handrail.index.v1.index_service_pb2 import (
    ArchivedFlow,
    ArchivedMessage,
    GetArchivedFlowRequest,
    GetArchivedFlowResponse,
    MessagePage,
    Scope,
)
from handrail.mesh.bus import RawMessage
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow, Void
from handrail.mesh.streams.history import History, decoded
from handrail.mesh.wire.envelope import from_timestamp
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.flow_service_pb2 import Flow as Summary

AT_ONCE = 8
"""The most archived flows that are asked for at the same time; more are refused at once."""

LONGEST = timedelta(seconds=2)
"""How long one page may take."""

_ALL_PAGES = timedelta(seconds=30)

_REASON = re.compile(r"(ERROR_REASON_[A-Z_]+): (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Archived:
    """What was said of a flow when it left FLOW: a summary, and why each void message does not count.

    Once it is `erased`, there is nothing else.
    """

    summary: Summary
    first_sequence: int
    void: Mapping[int, Void]
    erased: bool

    def judged(self, flow: Flow) -> Flow:
        """Returns the flow, folded from its messages, with the verdict of the release that archived it."""
        shown = flow.copy()
        shown.closed = self.summary.status
        shown.closed_reason = self.summary.status_reason
        shown.void = dict(self.void)
        return shown


class Archive:
    """Reads archived flows. Without an index there are none."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._in_progress = 0

    @property
    def is_there(self) -> bool:
        """Whether there is a visibility to ask."""
        return self._index.is_there

    async def find(self, flow_id: str, flow_type: str, scope: Scope, patience: timedelta = LONGEST) -> Archived | None:
        """Returns what was said of the flow; None if the archive has none in this scope. The type may be empty.

        Raises INDEX_UNAVAILABLE and ARCHIVE_DAMAGED.
        """
        request = GetArchivedFlowRequest(scope=scope, flow_id=flow_id, flow_type=flow_type)
        with self._turn():
            answer = await self._ask(request, patience)
        return _archived(answer.flow) if answer.HasField("flow") else None

    async def messages(self, archived: Archived) -> History:
        """Returns the messages of a flow. Raises FLOW_ARCHIVED if they are erased, and what `find` raises."""
        of = archived.summary
        scope = Scope(flow_types=[of.flow_type])
        request = GetArchivedFlowRequest(
            scope=scope, flow_id=of.flow_id, flow_type=of.flow_type, first_sequence=archived.first_sequence
        )
        messages: list[RawMessage] = []
        with self._turn():
            try:
                async with asyncio.timeout(_ALL_PAGES.total_seconds()):
                    more = True
                    while more:
                        request.page.CopyFrom(MessagePage(after=messages[-1].sequence if messages else 0))
                        answer = await self._ask(request, LONGEST)
                        if answer.flow.erased:
                            raise erased(of.flow_type, of.flow_id)
                        if not answer.messages:
                            raise unavailable("visibility has the flow, but not all of its messages")
                        messages += map(_raw, answer.messages)
                        more = answer.more
            except TimeoutError:
                raise unavailable(f"visibility needs more than {_ALL_PAGES.total_seconds():.0f} s for it") from None
        return decoded(messages)

    async def _ask(self, request: GetArchivedFlowRequest, patience: timedelta) -> GetArchivedFlowResponse:
        try:
            return await self._index.ask(self._index.questions.GetArchivedFlow, request, patience)
        except HandrailError as error:
            if error.reason != ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED:
                raise
            raise unavailable("visibility is too slow") from None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._in_progress >= AT_ONCE:
            raise unavailable(f"{AT_ONCE} archived flows are being read")
        self._in_progress += 1
        try:
            yield
        finally:
            self._in_progress -= 1


def erased(flow_type: str, flow_id: str) -> HandrailError:
    """Returns the error for what was erased of an archived flow: FLOW_ARCHIVED."""
    return HandrailError(
        ErrorReason.ERROR_REASON_FLOW_ARCHIVED,
        f"the messages of {flow_type} flow {flow_id} were erased: what became of it is all that is known",
        flow_id=flow_id,
    )


def _archived(flow: ArchivedFlow) -> Archived:
    void = {sequence: _void(text) for sequence, text in flow.void.items()}
    return Archived(flow.flow, flow.first_sequence, void, flow.erased)


def _void(text: str) -> Void:
    """Reads why a message is void: the text, after the reason if it has one."""
    parts = _REASON.fullmatch(text)
    if parts is None or parts[1] not in ErrorReason.DESCRIPTOR.values_by_name:
        return Void(text)
    return Void(parts[2], ErrorReason.Value(parts[1]))


def _raw(message: ArchivedMessage) -> RawMessage:
    return RawMessage(message.subject, message.body, message.sequence, from_timestamp(message.time))
