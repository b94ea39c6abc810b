"""The list of acts that wait for a second person: scans the stream for the requests, and folds their flows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from handrail.coordinator.lists.flows import EXAMINED, Covers, Listed, Listing, every_type, unreadable
from handrail.mesh.bus import Bus, RawMessage
from handrail.mesh.flow import Flow
from handrail.mesh.flow.acts import PendingAct
from handrail.mesh.streams import FLOW, outcomes, stream_walk
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.template.persons import ActState, has_expired
from handrail.mesh.wire.envelope import Unreadable
from handrail.mesh.wire.subjects import COORDINATOR, Kind
from handrail.v1.decision_pb2 import ActRequested

_ACT_REQUESTED = ActRequested.DESCRIPTOR.full_name


@dataclass(frozen=True, slots=True)
class Waiting:
    """An act, and the current state of its flow."""

    flow: Flow
    act: PendingAct


class ActScanner:
    """Lists acts by the time they were asked for, oldest first."""

    def __init__(self, bus: Bus, store: FlowStore) -> None:
        self._bus = bus
        self._store = store

    async def acts(
        self,
        *,
        size: int,
        now: datetime,
        cursor: int = 0,
        flow_type: str = "",
        include_closed: bool = False,
        covers: Covers = every_type,
    ) -> Listing[Waiting | Unreadable]:
        """Lists the acts that a confirmation at `now` would do; with `include_closed` all there were.

        Raises what reading the stream raises.
        """
        rows: list[Listed[Waiting | Unreadable]] = []
        examined = 0
        subject_filter = f"flow.{flow_type or '*'}.*.{Kind.DECISION}.{COORDINATOR}.*.{_ACT_REQUESTED}"
        async for message in stream_walk.oldest_first(self._bus, FLOW, subject_filter, after=cursor):
            examined += 1
            found = await self._waiting(message, covers)
            if isinstance(found, Unreadable) or (found is not None and (include_closed or _waits(found.act, now))):
                rows.append(Listed(found, message.sequence))
            if len(rows) == size or examined == EXAMINED:
                return Listing(tuple(rows), message.sequence)
        return Listing(tuple(rows), 0)

    async def _waiting(self, message: RawMessage, covers: Covers) -> Waiting | Unreadable | None:
        request = outcomes.readable(message)
        if request is None or not covers(request.address.flow_type):
            return None
        address = request.address
        try:
            flow = await self._store.load(address.flow_type, address.flow_id, at_least=request.sequence)
        except Exception as error:
            return unreadable(address.flow_type, address.flow_id, error, proposal_id=request.event_id)
        act = flow.acts.get(request.event_id)
        # A void request is no act.
        return None if act is None or act.recorded.sequence != request.sequence else Waiting(flow, act)


def _waits(act: PendingAct, now: datetime) -> bool:
    return act.state is ActState.PENDING and not has_expired(act, now)
