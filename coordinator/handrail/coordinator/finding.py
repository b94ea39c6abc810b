"""Finding a flow of which only an id is known, and reading it so that the caller's own writes are in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from handrail.coordinator.deadlines import time_left
from handrail.mesh.bus import ApiError, Bus
from handrail.mesh.envelope import Recorded
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow
from handrail.mesh.jsapi import API_TIMEOUT, MESSAGE_NOT_FOUND
from handrail.mesh.store import FlowStore, History
from handrail.mesh.streams import FLOW
from handrail.mesh.subjects import Address, Kind, parse
from handrail.v1.error_reason_pb2 import ErrorReason


@dataclass(frozen=True, slots=True)
class Found:
    """The newest message that was looked for: where it lies."""

    address: Address
    sequence: int


class Finder:
    """Asks the stream's leader where things are, and then any replica for what is there, at least as new."""

    def __init__(self, bus: Bus, store: FlowStore) -> None:
        self._bus = bus
        self._store = store

    async def flow(self, flow_id: str) -> Found:
        """The newest message of a flow; FLOW_NOT_FOUND."""
        found = await self._newest(f"flow.*.{flow_id}.>")
        if found is None:
            raise no_flow(flow_id)
        return found

    async def proposal(self, event_id: str) -> Found:
        """The proposal with this id; APPROVAL_NOT_FOUND."""
        found = await self._newest(f"flow.*.*.{Kind.PROPOSAL}.*.{event_id}.>")
        if found is None:
            raise no_approval(event_id)
        return found

    async def history(self, flow_id: str) -> History:
        """The messages of a flow in stream order; FLOW_NOT_FOUND."""
        found = await self.flow(flow_id)
        return await self._store.read(found.address.flow_type, flow_id, at_least=found.sequence)

    async def fold(self, flow_id: str, history: Sequence[Recorded]) -> Flow:
        """Fold what `history` gave, or part of it; FLOW_NOT_FOUND where it is empty, TEMPLATE_NOT_FOUND."""
        if not history:
            raise HandrailError(
                ErrorReason.ERROR_REASON_FLOW_NOT_FOUND,
                f"flow {flow_id} has no readable message, or had none yet at that moment",
                flow_id=flow_id,
            )
        return await self._store.fold(history[0].address.flow_type, flow_id, history)

    async def load(self, flow_id: str) -> Flow:
        """A flow as it stands; FLOW_NOT_FOUND, TEMPLATE_NOT_FOUND."""
        return await self.fold(flow_id, await self.history(flow_id))

    async def load_as_of(self, flow_id: str, *, sequence: int = 0, time: datetime | None = None) -> Flow:
        """A flow as it stood at a sequence, or a time, or both; FLOW_NOT_FOUND where it had not begun."""
        if not sequence and time is None:
            return await self.load(flow_id)
        history = await self.history(flow_id)
        return await self.fold(flow_id, [recorded for recorded in history if _is_within(recorded, sequence, time)])

    async def _newest(self, subject_filter: str) -> Found | None:
        request = {"last_by_subj": subject_filter}
        try:
            answer = await self._bus.request_json(
                f"$JS.API.STREAM.MSG.GET.{FLOW}", request, timeout=time_left(API_TIMEOUT)
            )
        except ApiError as error:
            if error.code == MESSAGE_NOT_FOUND:
                return None
            raise
        message = answer["message"]
        return Found(parse(message["subject"]), int(message["seq"]))


def no_flow(flow_id: str) -> HandrailError:
    """The error for a flow that is not there."""
    return HandrailError(ErrorReason.ERROR_REASON_FLOW_NOT_FOUND, f"there is no flow {flow_id}", flow_id=flow_id)


def no_approval(approval_id: str) -> HandrailError:
    """The error for an approval that is not there."""
    return HandrailError(
        ErrorReason.ERROR_REASON_APPROVAL_NOT_FOUND, f"there is no approval {approval_id}", approval_id=approval_id
    )


def _is_within(recorded: Recorded, sequence: int, time: datetime | None) -> bool:
    return (not sequence or recorded.sequence <= sequence) and (time is None or recorded.time <= time)
