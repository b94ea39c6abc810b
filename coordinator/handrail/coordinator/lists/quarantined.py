"""Lists quarantined messages from the agents' quarantines and the coordinator's own."""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.message import DecodeError

from handrail.coordinator.lists.flows import EXAMINED, Covers, every_type
from handrail.mesh.bus import Bus, RawMessage, fresh_read
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import quarantine_stream, stream_walk
from handrail.mesh.streams.quarantine_streams import quarantines
from handrail.mesh.wire.envelope import timestamp
from handrail.mesh.wire.subjects import parse_quarantine
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import Quarantined
from handrail.v1.quarantine_service_pb2 import QuarantinedMessage


class Place(NamedTuple):
    """A place in the list: an agent, empty for the coordinator's own quarantine, and a sequence in its quarantine."""

    agent: str = ""
    sequence: int = 0


BEGINNING = Place()


class Kept(NamedTuple):
    """One page. The list continues after the place `end`, unless that is None."""

    messages: tuple[QuarantinedMessage, ...]
    end: Place | None


class QuarantineReader:
    """Reads the quarantines. Every call also raises what reading the streams raises."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def page(
        self, *, size: int, after: Place = BEGINNING, agent: str = "", flow_type: str = "", covers: Covers = every_type
    ) -> Kept:
        """Lists quarantined messages, by agent, the oldest of each first; of one `agent`, unless that is empty."""
        found: list[QuarantinedMessage] = []
        examined = 0
        wanted = f"quarantine.{flow_type or '*'}.>"
        for each in await quarantines(self._bus):
            if each < after.agent or agent not in ("", each):
                continue
            start = after.sequence if each == after.agent else 0
            stream = quarantine_stream(each)
            async for message in stream_walk.oldest_first(self._bus, stream, wanted, after=start):
                examined += 1
                shown = _quarantined(each, message)
                if covers(shown.flow_type):
                    found.append(shown)
                if len(found) == size or examined == EXAMINED:
                    return Kept(tuple(found), Place(each, message.sequence))
        return Kept(tuple(found), None)

    async def message(self, agent: str, quarantine_id: int) -> QuarantinedMessage:
        """Returns one message of an agent's quarantine; raises QUARANTINE_NOT_FOUND."""
        if agent not in await quarantines(self._bus):
            raise not_quarantined(agent, quarantine_id)
        stream = quarantine_stream(agent)
        message = await fresh_read.by_sequence(self._bus, stream, quarantine_id, subject_filter="quarantine.>")
        if message is None:
            raise not_quarantined(agent, quarantine_id)
        return _quarantined(agent, message)


def place_of(message: QuarantinedMessage) -> Place:
    """Returns the place of a message in the list."""
    return Place(message.agent, message.quarantine_id)


def not_quarantined(agent: str, quarantine_id: int) -> HandrailError:
    """Returns the error for a quarantined message that does not exist."""
    shown = f"{agent}/{quarantine_id}" if agent else str(quarantine_id)
    return HandrailError(
        ErrorReason.ERROR_REASON_QUARANTINE_NOT_FOUND,
        f"there is no quarantined message {shown}",
        quarantine_id=shown,
    )


def _quarantined(agent: str, message: RawMessage) -> QuarantinedMessage:
    said = parse_quarantine(message.subject)
    try:
        kept = Quarantined.FromString(message.body)
    except DecodeError:
        kept = Quarantined(
            reason=ErrorReason.ERROR_REASON_MALFORMED,
            detail="the quarantined message can't be parsed as handrail.v1.Quarantined",
            subject=message.subject,
            body=message.body,
        )
    # The broker checks who publishes on the subject; what the record says of itself may be anything.
    kept.reporter = said.reporter
    return QuarantinedMessage(
        quarantine_id=message.sequence,
        time=timestamp(message.time),
        flow_type=said.flow_type,
        flow_id=said.flow_id,
        event_id=said.event_id,
        message=kept,
        agent=agent,
    )
