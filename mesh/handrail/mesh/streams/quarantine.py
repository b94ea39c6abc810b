"""The quarantine, Handrail's dead-letter queue: keeps messages that break their contract, with their bytes.

Each agent has a quarantine of its own. It takes what that agent reports, and what the coordinator reports of that
agent's messages. The coordinator's own takes what comes from no known agent.
"""

from __future__ import annotations

import logging

from handrail.mesh.bus import Bus
from handrail.mesh.errors import HandrailError, WrongSequence
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.quarantine_streams import agents_named
from handrail.mesh.wire import ids
from handrail.mesh.wire.subjects import IDENTIFIER, NO_AGENT, quarantine_subject
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import Quarantined

log = logging.getLogger(__name__)


class Quarantine:
    """The quarantine as one reporter fills it: an agent, or the coordinator."""

    def __init__(self, bus: Bus, catalog: Catalog, *, reporter: str) -> None:
        self._bus = bus
        self.catalog = catalog
        self._reporter = reporter

    async def put(
        self, *, subject: str, body: bytes, sequence: int, reason: ErrorReason.ValueType, detail: str
    ) -> None:
        """Puts a message of the FLOW stream into quarantine, with its bytes and the reason.

        It is stored under its own event id. If that id is invalid or taken, it is stored under an id derived from
        subject and bytes. So two messages with one id are both kept, and repeats of one message are stored twice at
        most, unless a flood has pushed out the first. Raises the errors of `Bus.publish`.
        """
        tokens = (subject.split(".", 6) + [""] * 6)[:6]
        _, flow_type, flow_id, _, agent, own_id = tokens
        record = Quarantined(
            reason=reason, detail=detail, subject=subject, stream_sequence=sequence, body=body, reporter=self._reporter
        )
        log.warning(
            "flow %s: message %d is quarantined (%s): %s", flow_id[:32], sequence, ErrorReason.Name(reason), detail
        )
        # Other agents have no quarantine.
        about = agent if agent in agents_named(self.catalog.all()) else NO_AGENT
        own_ids = [own_id] if IDENTIFIER.fullmatch(own_id) else []
        for event_id in (*own_ids, ids.quarantine_id(subject, body)):
            if await self._store(quarantine_subject(flow_type, flow_id, self._reporter, about, event_id), record):
                return

    async def _store(self, target: str, record: Quarantined) -> bool:
        """Stores a record, unless the subject is taken. Returns whether it stored it."""
        try:
            await self._bus.publish(target, record.SerializeToString(), expected_sequence=0)
        except WrongSequence:
            return False
        except HandrailError as error:
            if error.reason != ErrorReason.ERROR_REASON_TOO_LARGE or not record.body:
                raise
            # With reason and subject added, a message of the largest size no longer fits. The FLOW stream still has its
            # bytes.
            record.body = b""
            record.detail += f" (its bytes are in the FLOW stream at {record.stream_sequence})"
            return await self._store(target, record)
        return True
