"""The envelope: one `handrail.v1.Event` around each message, and the agreement between its body and its subject."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from handrail.mesh.errors import HandrailError
from handrail.mesh.wire import ids
from handrail.mesh.wire.subjects import COORDINATOR, Address, Kind, parse
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.event_pb2 import Event

TYPE_URL = "type.googleapis.com/"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

COMMANDS = frozenset({Kind.RETRY, Kind.UNDO})
"""Kinds with the addressee in the agent token of the subject; in all other kinds the token names the sender."""

_OUTCOMES = frozenset({Kind.EVENT, Kind.PROPOSAL, Kind.RELEASED})


@dataclass(frozen=True, slots=True)
class Recorded:
    """One message of a flow as stored in the stream. The broker sets `time`; `sequence` gives the stream order."""

    address: Address
    event: Event
    sequence: int
    time: datetime

    @property
    def kind(self) -> Kind:
        """The kind of the message."""
        return self.address.kind

    @property
    def event_id(self) -> str:
        """The id of the event."""
        return self.address.event_id

    @property
    def type(self) -> str:
        """The full name of the message in `event.data`."""
        return self.address.message_type

    @property
    def agent(self) -> str:
        """The agent token of the subject."""
        return self.address.agent


@dataclass(frozen=True, slots=True)
class Malformed:
    """A message of the FLOW stream that can't be decoded, with the reason. It is void."""

    subject: str
    sequence: int
    time: datetime
    error: HandrailError = field(compare=False)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A flow that can't be folded, or a proposal that can't be shown, with the reason. Lists continue past it."""

    flow_type: str
    flow_id: str
    why: str
    proposal_id: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A message that is ready to append to a flow."""

    address: Address
    event: Event

    @property
    def body(self) -> bytes:
        """The bytes to publish."""
        return self.event.SerializeToString()


def pack(message: Message) -> Any:
    """Packs a message into an `Any`, with the type URL that all readers of Handrail expect."""
    return Any(type_url=TYPE_URL + message.DESCRIPTOR.full_name, value=message.SerializeToString(deterministic=True))


def type_of(data: Any) -> str:
    """The full name of the message in an `Any`."""
    return data.type_url.rpartition("/")[2]


def timestamp(time: datetime) -> Timestamp:
    """Converts an aware time to a protobuf timestamp, at a third of the cost of `Timestamp.FromDatetime`."""
    since = time - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def from_timestamp(stamp: Timestamp) -> datetime:
    """Converts a protobuf timestamp to an aware time in UTC."""
    return stamp.ToDatetime(tzinfo=UTC)


def decode(subject: str, body: bytes, *, sequence: int, time: datetime) -> Recorded:
    """Decodes a message of the FLOW stream.

    Raises HandrailError: WRONG_ADDRESS if the subject is not a FLOW subject or disagrees with the body, MALFORMED if
    the body is not an event, WRONG_EVENT_ID if the id does not follow from the body.
    """
    address = parse(subject)
    try:
        event = Event.FromString(body)
    except DecodeError as error:
        raise HandrailError(
            ErrorReason.ERROR_REASON_MALFORMED, f"the body on {subject} is not a handrail.v1.Event: {error}"
        ) from error
    check_agreement(address, event)
    return Recorded(address, event, sequence, time)


def check_agreement(address: Address, event: Event) -> None:
    """Raises WRONG_ADDRESS or WRONG_EVENT_ID unless subject and body agree; for publishers and readers."""
    speaker = COORDINATOR if address.kind in COMMANDS else address.agent
    data_type = type_of(event.data)
    if (
        event.flow_id != address.flow_id
        or event.event_id != address.event_id
        or event.source != speaker
        or data_type != address.message_type
        or event.flow_type != address.flow_type
    ):
        raise _disagreement(address, event, speaker, data_type)
    expected = derived_id(address.kind, event)
    if expected is not None and expected != event.event_id:
        raise HandrailError(
            ErrorReason.ERROR_REASON_WRONG_EVENT_ID,
            f'flow {address.flow_id}: event id {event.event_id} does not follow from step "{event.step}", '
            f'root "{event.root}", run {event.run}, index {event.output_index}; it would be {expected}',
        )


def _disagreement(address: Address, event: Event, speaker: str, data_type: str) -> HandrailError:
    pairs = (
        ("flow_type", event.flow_type, address.flow_type),
        ("flow_id", event.flow_id, address.flow_id),
        ("event_id", event.event_id, address.event_id),
        ("source", event.source, speaker),
        ("data type", data_type, address.message_type),
    )
    field, said, addressed = next(pair for pair in pairs if pair[1] != pair[2])
    return HandrailError(
        ErrorReason.ERROR_REASON_WRONG_ADDRESS,
        f'flow {address.flow_id}: the body says {field} "{said[:80]}", its subject "{addressed}"',
        field=field,
    )


def derived_id(kind: Kind, event: Event) -> str | None:
    """The id that follows from the envelope; None if the id of this kind depends on more than the envelope."""
    if kind in _OUTCOMES:
        return ids.outcome_id(event.flow_id, event.step, event.root, event.run, event.output_index)
    if kind is Kind.UNDONE:
        return ids.undone_id(event.flow_id, event.root)
    if kind in COMMANDS:
        return ids.attempt_id(kind, event.flow_id, event.step, event.root, event.run, event.attempt)
    return None
