"""Reads flows for calls that change nothing: from FLOW, or from the archive once they left it.

An archived flow is folded like others. Its status, its reason and which messages are void are those that were stored
when it left, whatever this release would say. An earlier state of it is what this release makes of the messages.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime

from handrail.coordinator.api.flow_lookup import Finder, Found, InArchive, Part, no_flow
from handrail.coordinator.api.qualified_id import parsed
from handrail.coordinator.lists.archive import Archive, Archived, erased
from handrail.mesh.flow import Flow
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.history import History, has_beginning
from handrail.mesh.wire.envelope import Recorded


@dataclass(frozen=True, slots=True)
class Past:
    """The messages of a flow, and what was said of it if it is archived."""

    flow_type: str
    flow_id: str
    history: History
    archived: Archived | None = None

    @property
    def is_erased(self) -> bool:
        """Whether nothing is left but what was said of it."""
        return self.archived is not None and self.archived.erased


class FlowReader:
    """Reads what the current caller may read. Every method raises FLOW_NOT_FOUND or the like if there is nothing,
    FLOW_ARCHIVED if the archive can't be read, ARCHIVE_DAMAGED, INDEX_UNAVAILABLE, and what reading FLOW raises.
    """

    def __init__(self, finder: Finder, store: FlowStore, archive: Archive) -> None:
        self._finder = finder
        self._store = store
        self._archive = archive

    async def past(self, flow_id: str) -> Past:
        """Returns the messages of a flow."""
        return await self._past(self._finder.flow(flow_id))

    async def archived(self, archived: Archived) -> Past:
        """Returns the messages of an archived flow; none if they were erased."""
        history = History() if archived.erased else await self._archive.messages(archived)
        return Past(archived.summary.flow_type, archived.summary.flow_id, history, archived)

    async def fold(self, past: Past, *, sequence: int = 0, time: datetime | None = None) -> Flow:
        """Folds a flow as of a sequence, a time, or both; raises FLOW_NOT_FOUND if it had not begun,
        TEMPLATE_NOT_FOUND, and FLOW_ARCHIVED if its messages were erased.
        """
        if past.is_erased:
            raise erased(past.flow_type, past.flow_id)
        if not sequence and time is None:
            return self._judged(past, await self._finder.fold(past.flow_id, past.history))
        some = [each for each in past.history if _is_within(each, sequence, time)]
        flow = await self._finder.fold(past.flow_id, some)
        return self._judged(past, flow) if len(some) == len(past.history) else flow

    async def load(self, flow_id: str) -> Flow:
        """Reads a flow as it is, or as it was when it left FLOW."""
        return await self.fold(await self.past(flow_id))

    async def with_proposal(self, approval_id: str) -> tuple[Flow, str]:
        """Reads the flow of an approval; returns also the id of the proposal within it."""
        return await self._with_part(self._finder.proposal(approval_id), approval_id)

    async def with_act(self, act_id: str) -> tuple[Flow, str]:
        """Reads the flow of an act; returns also the id of the act within it."""
        return await self._with_part(self._finder.act(act_id), act_id)

    async def _with_part(self, finding: Awaitable[Part], part_id: str) -> tuple[Flow, str]:
        flow = await self.fold(await self._past(finding))
        part = parsed(part_id)
        assert part is not None, "only what has such an id is found"
        return flow, part.own_id

    async def _past(self, finding: Awaitable[Found]) -> Past:
        try:
            found = await finding
        except InArchive as gone:
            return await self.archived(gone.archived)
        flow_type, flow_id = found.flow_type, found.flow_id
        history = await self._store.read(flow_type, flow_id, at_least=found.sequence)
        if history.last_sequence and (not history or has_beginning(history)):
            return Past(flow_type, flow_id, history)
        # It was purged meanwhile, or these messages came after it left.
        error = await self._finder.gone(flow_type, flow_id, no_flow(flow_id))
        if isinstance(error, InArchive):
            return await self.archived(error.archived)
        if not history:
            raise error
        return Past(flow_type, flow_id, history)

    @staticmethod
    def _judged(past: Past, flow: Flow) -> Flow:
        return flow if past.archived is None else past.archived.judged(flow)


def _is_within(recorded: Recorded, sequence: int, time: datetime | None) -> bool:
    return (not sequence or recorded.sequence <= sequence) and (time is None or recorded.time <= time)
