"""The open flows that the index has: the sweep looks at them instead of walking over the stream.

The index is believed only as far as it covers the stream, and it is not believed for ever: what it lacks, the sweep
finds by its walk.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

from handrail.coordinator.lists.index import Index, Unavailable, unavailable
from handrail.coordinator.reconcile.attendant import Found
from handrail.index.v1.index_service_pb2 import ListOpenFlowsRequest, ListOpenFlowsResponse
from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams.reading import is_stored
from handrail.mesh.wire.envelope import from_timestamp
from handrail.mesh.wire.subjects import IDENTIFIER, NAME

_PAGE = 100
"""Flows of a page: they take two seconds, at the sweep's pace."""


class Listed(NamedTuple):
    """Open flows, by their last message. None with a last message up to `up_to` comes after them."""

    flows: list[Found]
    up_to: int


class OpenFlows:
    """Asks the index for open flows."""

    def __init__(self, bus: NatsBus, index: Index) -> None:
        self._bus = bus
        self._index = index

    @property
    def is_there(self) -> bool:
        """Whether there is an index to ask, whatever it answers."""
        return self._index.is_there

    async def pages(self, *, stream_created: str, after: int, up_to: int) -> AsyncIterator[Listed]:
        """Yields the flows that are not over and whose last message is behind `after`, but not behind `up_to`.

        A flow whose last message moves on meanwhile may be left out: it is behind `up_to` then. Raises Unavailable if
        the index can't be asked, or does not cover everything up to there of the stream created at `stream_created`;
        and BROKER_UNAVAILABLE.
        """
        has_more, is_checked = True, False
        while has_more:
            answer = await self._ask(ListOpenFlowsRequest(after=after, up_to=up_to, page_size=_PAGE))
            if answer.stream_created != stream_created:
                raise unavailable("the index is of another stream")
            if answer.as_of.sequence < up_to:
                raise unavailable(f"the index covers {answer.as_of.sequence} messages, and not {up_to}")
            if not is_checked and not await self._is_of_stream(answer):
                raise unavailable("the index is of a stream that was restored")
            _require_order(answer, after, up_to)
            has_more, is_checked = answer.more, True
            after = answer.flows[-1].last_sequence if has_more else up_to
            yield Listed(list(_flows(answer)), after)

    async def _ask(self, request: ListOpenFlowsRequest) -> ListOpenFlowsResponse:
        try:
            return await self._index.ask(self._index.questions.ListOpenFlows, request)
        except Unavailable:
            raise
        except HandrailError as error:
            raise unavailable(error.text) from None

    async def _is_of_stream(self, answer: ListOpenFlowsResponse) -> bool:
        as_of = answer.as_of
        return not as_of.HasField("time") or await is_stored(self._bus, as_of.sequence, from_timestamp(as_of.time))


def _require_order(answer: ListOpenFlowsResponse, after: int, up_to: int) -> None:
    """Raises Unavailable unless the page has what was asked for, and leads on."""
    for each in answer.flows:
        if not after < each.last_sequence <= up_to:
            raise unavailable("the index names flows that were not asked for")
        after = each.last_sequence
    if answer.more and not answer.flows:
        raise unavailable("the index names no flow, and says that there are more")


def _flows(answer: ListOpenFlowsResponse) -> Iterator[Found]:
    """The flows of a page. What has no valid name is in quarantine, and must not become a subject."""
    for each in answer.flows:
        if NAME.fullmatch(each.flow_type) and IDENTIFIER.fullmatch(each.flow_id):
            yield each.flow_type, each.flow_id, each.last_sequence
