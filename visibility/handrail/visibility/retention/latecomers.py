"""What comes after a flow left: it is put into quarantine, and purged."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import islice

from handrail.mesh.bus import NatsBus, RawMessage
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.quarantine import Quarantine
from handrail.mesh.wire import ids
from handrail.mesh.wire.subjects import COORDINATOR, Kind, flow_filter, parse
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.visibility.archive.verdict import Verdict
from handrail.visibility.retention.looks import Looks, name_of

log = logging.getLogger(__name__)

AFTER = timedelta(minutes=1)
"""How long after its purge a flow is looked at again: a publisher gives up within that time."""

_TOGETHER = 100
"""Flows that are looked at together."""


class Latecomers:
    """Looks again at the flows that left."""

    def __init__(self, bus: NatsBus, store: FlowStore) -> None:
        self._bus = bus
        self._looks = Looks(bus, store)
        self._quarantine = Quarantine(bus, store.catalog, reporter=COORDINATOR)
        self._new: list[Verdict] = []
        self._left: deque[tuple[datetime, Verdict]] = deque()

    def expect(self, verdict: Verdict) -> None:
        """Takes note of a flow that left, or is about to. Its time counts from the next look."""
        self._new.append(verdict)

    async def look(self, now: datetime, *, gate: int) -> None:
        """Looks at the flows that left a minute ago. `now` is the broker's time, later than all that was expected.

        What came behind `gate`, the sequence up to which everything is archived and handled, is looked at later. Raises
        what the broker's answers raise: then it looks again.
        """
        self._left.extend((now + AFTER, each) for each in self._new)
        self._new.clear()
        while due := [verdict for begins, verdict in islice(self._left, _TOGETHER) if begins <= now]:
            stored = await self._looks.messages(map(name_of, due))
            for verdict in due:
                if await self._has_more(verdict, stored[name_of(verdict)], gate):
                    self.expect(verdict)
                self._left.popleft()

    async def _has_more(self, verdict: Verdict, messages: Sequence[RawMessage], gate: int) -> bool:
        """Purges what came late and is safe; whether there is more."""
        if any(map(_begins, messages)):
            return False  # a key that was forgotten began a flow anew
        if messages and messages[0].sequence <= verdict.sequences[-1]:
            return True  # its purge was cut off, and is not done again yet
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
