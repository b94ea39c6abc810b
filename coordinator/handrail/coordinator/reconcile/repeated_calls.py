"""Repeated calls: how a call is recorded, whether it was recorded before, and how it was answered. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256

from google.protobuf.message import Message

from handrail.coordinator.decide.caller import Caller
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow, Requested
from handrail.mesh.fold import requests
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import COMMANDS, Entry, Recorded, from_timestamp, timestamp
from handrail.mesh.wire.identity import canonical
from handrail.mesh.wire.subjects import COORDINATOR, Kind
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.event_pb2 import CallerRequest, Event

_ID = "request_id"
_SUFFIX = "Request"


def caller_request(request: Message, caller: Caller) -> CallerRequest:
    """Returns what is recorded of a call: its id, the caller, the method, and the digest of everything else in it."""
    rest = type(request)()
    rest.CopyFrom(request)
    request_id = str(getattr(request, _ID))
    rest.ClearField(_ID)
    return CallerRequest(
        id=request_id.lower(),
        caller=canonical(caller.subject),
        rpc=request.DESCRIPTOR.name.removesuffix(_SUFFIX),
        digest=sha256(rest.SerializeToString(deterministic=True)).hexdigest(),
    )


def recorded_before(flow: Flow, request: CallerRequest, *, agent: str = "") -> Requested | None:
    """Returns what an earlier try of the same call recorded; None if this is the first try, or no earlier one counted.

    Raises REQUEST_ID_REUSED if the id was used for a different call.
    """
    known = requests.find(flow, request, agent=agent)
    if known is None or not known.sequence:
        return None
    if (known.rpc, known.digest) != (request.rpc, request.digest):
        raise reused(request, f"flow {flow.flow_id}: {known.rpc} recorded at {known.sequence}", flow_id=flow.flow_id)
    return known


def reused(request: CallerRequest, what: str, **metadata: str) -> HandrailError:
    """Returns the error for a request id that was used for a different call."""
    return HandrailError(
        ErrorReason.ERROR_REASON_REQUEST_ID_REUSED,
        f"request id {request.id} was used before for another request ({what}); use a new id for each request",
        **metadata,
    )


def stamped(flow: Flow, entry: Entry, request: CallerRequest, *, now: datetime) -> Entry:
    """Adds the call to its entry, and the time at which it is judged, which the decisions on it share.

    The event's id is derived from the call's id: the same call is stored once.
    """
    event = Event()
    event.CopyFrom(entry.event)
    event.request.CopyFrom(request)
    event.time.CopyFrom(timestamp(now))
    if not request.id:
        return Entry(entry.address, event)
    known = requests.find(flow, request)
    voids = 0 if known is None else known.voids
    event.event_id = ids.requested_id(flow.flow_id, request.caller, request.id, voids)
    return Entry(entry.address._replace(event_id=event.event_id), event)


def end_of_answer(history: Sequence[Recorded], sequence: int) -> int:
    """Returns the sequence up to which a call recorded at `sequence` is answered, including the decisions on it."""
    end, call = sequence, None
    for recorded in history:
        if recorded.sequence == sequence:
            call = recorded
        elif recorded.sequence > sequence:
            if call is None or not _follows(recorded, call):
                break
            end = recorded.sequence
    return end


def _follows(recorded: Recorded, call: Recorded) -> bool:
    """Tells whether a message is the coordinator's decision on a call: whoever took the call decides at the time that
    it judged it, another replica at the time that it was stored.
    """
    if recorded.kind is Kind.RELEASED:
        return True
    if recorded.kind not in COMMANDS and recorded.agent != COORDINATOR:
        return False
    decided_at = from_timestamp(recorded.event.time)
    return not recorded.event.HasField("request") and decided_at in (from_timestamp(call.event.time), call.time)
