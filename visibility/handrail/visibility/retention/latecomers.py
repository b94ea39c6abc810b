"""What comes after a flow left: it is put into quarantine, and purged."""

from __future__ import annotations

import logging
from collections import deque
from datetime import datetime, timedelta

from handrail.mesh.bus import NatsBus, RawMessage
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.quarantine import Quarantine
from handrail.mesh.wire import ids
from handrail.mesh.wire.subjects import COORDINATOR, Kind, flow_filter, parse
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.visibility.archive.verdict import Verdict

log = logging.getLogger(__name__)

AFTER = timedelta(minutes=1)
"""How long after its purge a flow is looked at again: a publisher gives up within that time."""


class Latecomers:
    """Looks again at the flows that left."""

    def __init__(self, bus: NatsBus, store: FlowStore) -> None:
        self._bus = bus
        self._store = store
        self._quarantine = Quarantine(bus, store.catalog, reporter=COORDINATOR)
        self._new: list[Verdict] = []
        self._left: deque[tuple[datetime, Verdict]] = deque()

    def expect(self, verdict: Verdict) -> None:
        """Takes note of a flow that left. Its time counts from the next look."""
        self._new.append(verdict)

    async def look(self, now: datetime, *, gate: int) -> None:
        """Looks at the flows that left a minute ago. `now` is the broker's time, later than all that was expected.

        What came behind `gate`, the sequence up to which everything is archived and handled, is looked at later. Raises
        what the broker's answers raise: then it looks again.
        """
        self._left.extend((now + AFTER, each) for each in self._new)
        self._new.clear()
        while self._left and self._left[0][0] <= now:
            verdict = self._left[0][1]
            if await self._has_more(verdict, gate):
                self.expect(verdict)
            self._left.popleft()

    async def _has_more(self, verdict: Verdict, gate: int) -> bool:
        """Purges what came late and is safe; whether there is more."""
        last = await self._store.newest(verdict.flow_type, verdict.flow_id)
        if not last:
            return False
        messages = await self._store.messages(verdict.flow_type, verdict.flow_id, at_least=last)
        if any(map(_begins, messages)):
            return False  # a key that was forgotten began a flow anew
        safe = [each for each in messages if each.sequence <= gate]
        for message in safe:
            await self._quarantine.put(
                subject=message.subject,
                body=message.body,
                sequence=message.sequence,
                reason=ErrorReason.ERROR_REASON_FLOW_ARCHIVED,
                detail="it came after its flow was archived",
            )
        if safe:
            request = {"filter": flow_filter(verdict.flow_type, verdict.flow_id), "seq": safe[-1].sequence + 1}
            await self._bus.request_json(f"$JS.API.STREAM.PURGE.{FLOW}", request)
            log.warning("flow %s: %d messages came after it was archived", verdict.flow_id, len(safe))
        return len(safe) < len(messages)


def _begins(message: RawMessage) -> bool:
    try:
        address = parse(message.subject)
    except HandrailError:
        return False
    return address.kind is Kind.EVENT and address.event_id == ids.start_id(address.flow_id)
