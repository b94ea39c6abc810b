"""Starts flows and publishes outcomes for gRPC callers, limited to what their identity may publish on the bus."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from handrail.coordinator.api.template_lookup import TemplateFinder
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.reconcile.repeated_calls import caller_request, recorded_before
from handrail.mesh.bus import Bus
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow, Void
from handrail.mesh.flow.work import FAILURES, PROGRESS, SAFE_AGE, Moment, Work
from handrail.mesh.fold import evolve
from handrail.mesh.streams import outcomes, start_flow
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore, no_flow
from handrail.mesh.streams.start_flow import Started
from handrail.mesh.template import STEP_COMPLETED, StepSpec
from handrail.mesh.wire import envelope
from handrail.mesh.wire.envelope import Entry, Recorded
from handrail.mesh.wire.subjects import COORDINATOR, Kind
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import StepFailed
from handrail.v1.flow_service_pb2 import PublishEventRequest, StartFlowRequest


@dataclass(frozen=True, slots=True)
class Published:
    """Where an outcome is stored. `already_stored` is true if an earlier call had stored it with the same data."""

    event_id: str
    sequence: int
    kind: Kind
    already_stored: bool


class Publishing:
    """Publishes for gRPC callers in any language."""

    def __init__(self, bus: Bus, catalog: Catalog, store: FlowStore) -> None:
        self._bus = bus
        self._catalog = catalog
        self._templates = TemplateFinder(catalog)
        self._store = store

    async def start(self, request: StartFlowRequest, caller: Caller) -> Started:
        """Starts a flow with the caller as its requester.

        Raises FLOW_TYPE_NOT_FOUND, UNKNOWN_MESSAGE_TYPE, CONTRACT_VIOLATION, and REQUEST_ID_REUSED if the request id
        started the flow with a different request.
        """
        template = await self._templates.active(request.flow_type)
        return await start_flow.start(
            self._bus,
            template,
            source=COORDINATOR,
            data=request.data,
            key=request.key,
            requester=caller.subject,
            request=caller_request(request, caller),
            template_of=self._catalog.template,
        )

    async def publish(self, request: PublishEventRequest, caller: Caller) -> Published:
        """Publishes an outcome of a step run as the caller's agent.

        Raises WRONG_AGENT if the agent may not publish it, FLOW_NOT_FOUND, CONTRACT_VIOLATION, DIFFERENT_ANSWER if the
        step run already has another outcome, WRONG_STATUS if the flow would not count it, and REQUEST_ID_REUSED.
        """
        await self._require_part(request, caller)
        flow = await self._store.load_newest(request.flow_type, request.flow_id)
        asked = caller_request(request, caller)
        earlier = recorded_before(flow, asked, agent=caller.agent)
        if earlier is not None:
            return Published(earlier.event_id, earlier.sequence, earlier.kind, already_stored=False)
        step = _own_step(flow, request, caller)
        message = flow.template.contracts.decode(request.data)
        flow.template.contracts.validate(message)
        entry = _outcome(flow, step, request)
        entry.event.request.CopyFrom(asked)
        void = _void(flow, entry)
        if void is not None:
            there = await outcomes.stored(self._bus, entry.address, patience=timedelta())
            return _same(there, entry) or _refuse(flow, void)
        stored = await outcomes.store(self._bus, entry)
        if isinstance(stored, Recorded):
            return _same(stored, entry) or _refuse(flow, _ANSWERED)
        return Published(entry.event.event_id, stored, entry.address.kind, already_stored=False)

    async def _require_part(self, request: PublishEventRequest, caller: Caller) -> None:
        """Raises FLOW_NOT_FOUND if the caller may not read the flow type and its agent has no step in it."""
        if caller.reads(request.flow_type) or self._has_step(request.flow_type, caller.agent):
            return
        await self._catalog.refresh_from_leader()
        if not self._has_step(request.flow_type, caller.agent):
            raise no_flow(request.flow_type, request.flow_id)

    def _has_step(self, flow_type: str, agent: str) -> bool:
        versions = self._catalog.versions(flow_type)
        return any(step.agent == agent for template in versions for step in template.steps.values())


_ANSWERED = Void("the step run already has a different answer", ErrorReason.ERROR_REASON_DIFFERENT_ANSWER)


def _same(stored: Recorded | None, entry: Entry) -> Published | None:
    """What is stored, if it has the same data; otherwise None."""
    wanted = entry.event
    if stored is None or stored.event.data != wanted.data:
        return None
    is_ours = bool(wanted.request.id) and stored.event.request == wanted.request
    return Published(stored.event_id, stored.sequence, stored.kind, already_stored=not is_ours)


def _void(flow: Flow, entry: Entry) -> Void | None:
    recorded = Recorded(entry.address, entry.event, flow.last_sequence + 1, datetime.now(UTC))
    return evolve(flow, recorded).void.get(recorded.sequence)


def _refuse(flow: Flow, void: Void) -> NoReturn:
    raise HandrailError(
        void.reason or ErrorReason.ERROR_REASON_WRONG_STATUS, f"flow {flow.flow_id}: {void.text}", flow_id=flow.flow_id
    )


def _own_step(flow: Flow, request: PublishEventRequest, caller: Caller) -> StepSpec:
    step = flow.template.steps.get(request.step)
    if step is None:
        raise HandrailError(
            ErrorReason.ERROR_REASON_STEP_NOT_FOUND,
            f'flow {flow.flow_id}: {flow.flow_type} has no step "{request.step}"',
            step=request.step,
        )
    name = envelope.type_of(request.data)
    if step.agent != caller.agent:
        raise _not_yours(flow, f"step {step.name} belongs to agent {step.agent}, not {caller.agent or 'you'}")
    allowed = step.undo.emits if request.undo_of and step.undo else step.emits
    if name not in allowed and name not in {STEP_COMPLETED, PROGRESS, *FAILURES}:
        raise _not_yours(flow, f"step {step.name} does not emit {name}; it emits {', '.join(sorted(allowed))}")
    return step


def _not_yours(flow: Flow, text: str) -> HandrailError:
    return HandrailError(ErrorReason.ERROR_REASON_WRONG_AGENT, f"flow {flow.flow_id}: {text}", flow_id=flow.flow_id)


def _outcome(flow: Flow, step: StepSpec, request: PublishEventRequest) -> Entry:
    undo_of = request.undo_of or _undo_that_failed(request)
    work = Work(
        template=flow.template,
        flow_id=flow.flow_id,
        step=step,
        root=undo_of or request.root,
        run=request.run,
        attempt=request.attempt,
        cause=_trigger(flow, request),
        undo_of=undo_of,
    )
    now = datetime.now(UTC)
    entry = work.outcome(request.data, moment=Moment(now), index=request.output_index, total=request.output_total)
    run = flow.runs.get((request.step, request.root))
    entry.event.late = run is not None and now - run.trigger.time > SAFE_AGE
    return entry


def _undo_that_failed(request: PublishEventRequest) -> str:
    """The id of the event whose undo failed, taken from the failure; empty if a forward step failed."""
    if envelope.type_of(request.data) != StepFailed.DESCRIPTOR.full_name:
        return ""
    return StepFailed.FromString(request.data.value).undo_of


def _trigger(flow: Flow, request: PublishEventRequest) -> str:
    run = flow.runs.get((request.step, request.root))
    return run.trigger.event_id if run is not None else ""
