"""Requests: the calls that had something recorded, so that a call that comes again is answered, and not done again."""

from __future__ import annotations

from handrail.mesh.flow import Flow, Requested, Void
from handrail.mesh.flow.values import replace
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import COORDINATOR
from handrail.v1.event_pb2 import CallerRequest


def apply(flow: Flow, recorded: Recorded, void: Void | None) -> None:
    """Remember the call that a message came of; a void message is counted, so that it never blocks the next try."""
    request = recorded.event.request
    if not request.id:
        return
    key = (_speaker(recorded), request.caller, request.id)
    known = flow.requests.get(key)
    if known is None:
        known = Requested(request.rpc, request.digest)
    if void is not None:
        known = replace(known, voids=known.voids + 1)
    elif not known.sequence:
        known = Requested(
            request.rpc,
            request.digest,
            sequence=recorded.sequence,
            event_id=recorded.event_id,
            kind=recorded.kind,
            voids=known.voids,
        )
    flow.requests = {**flow.requests, key: known}


def find(flow: Flow, request: CallerRequest, *, agent: str = "") -> Requested | None:
    """What became of a call so far; `agent` is the one that it spoke for. None where nothing was recorded."""
    return flow.requests.get((agent, request.caller, request.id)) if request.id else None


def _speaker(recorded: Recorded) -> str:
    """Whose word the request is: an agent's is kept apart, so that it can't pass for a call that steps in."""
    return "" if recorded.agent == COORDINATOR else recorded.agent
