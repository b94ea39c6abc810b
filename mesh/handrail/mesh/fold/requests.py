"""Requests: the recorded calls of a flow, so that a repeated call gets its answer and is not executed again."""

from __future__ import annotations

from handrail.mesh.flow import Flow, Requested, Void
from handrail.mesh.flow.values import replace
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import COORDINATOR
from handrail.v1.event_pb2 import CallerRequest


def apply(flow: Flow, recorded: Recorded, void: Void | None) -> None:
    """Notes the call behind a message. Void messages are counted, so that they never block the next try."""
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
    """The record of a call so far, or None. `agent` is the agent that the call spoke for."""
    return flow.requests.get((agent, request.caller, request.id)) if request.id else None


def _speaker(recorded: Recorded) -> str:
    """The speaker of a request. Requests of agents are kept apart, so that they can't pass for calls of operators."""
    return "" if recorded.agent == COORDINATOR else recorded.agent
