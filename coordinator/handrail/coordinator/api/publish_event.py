"""Starting flows and publishing outcomes for callers over gRPC: what their identity may publish on the bus, and no
more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.reconcile.repeated_calls import caller_request, recorded_before
from handrail.mesh.bus import Bus
from handrail.mesh.errors import AlreadyStored, BrokerUnavailable, HandrailError, WrongSequence
from handrail.mesh.flow import Flow, Void
from handrail.mesh.fold import evolve
from handrail.mesh.streams import start_flow
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import OUTCOME_PATIENCE, FlowStore
from handrail.mesh.streams.start_flow import Started
from handrail.mesh.template import StepSpec
from handrail.mesh.wire import envelope, ids
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import COORDINATOR, Address, Kind, outcome_filter
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.event_pb2 import Event
from handrail.v1.failure_pb2 import StepCompleted, StepFailed, StepNotStarted, StepProgress
from handrail.v1.flow_service_pb2 import PublishEventRequest, StartFlowRequest

_COMPLETED = StepCompleted.DESCRIPTOR.full_name
_FAILURES = {StepFailed.DESCRIPTOR.full_name, StepNotStarted.DESCRIPTOR.full_name}
_PROGRESS = StepProgress.DESCRIPTOR.full_name


@dataclass(frozen=True, slots=True)
class Published:
    """Where an outcome is stored. `already_stored` is true where it was there before, with the same data, by another
    call."""

    event_id: str
    sequence: int
    kind: Kind
    already_stored: bool


class Publishing:
    """Publishes for callers in any language."""

    def __init__(self, bus: Bus, catalog: Catalog, store: FlowStore) -> None:
        self._bus = bus
        self._catalog = catalog
        self._store = store

    async def start(self, request: StartFlowRequest, caller: Caller) -> Started:
        """Begin a flow in the caller's name.

        Raises FLOW_TYPE_NOT_FOUND, UNKNOWN_MESSAGE_TYPE, CONTRACT_VIOLATION, and REQUEST_ID_REUSED where the request
        id began the flow with another request.
        """
        template = await self._catalog.active(request.flow_type, from_leader=True)
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
        """Publish an outcome of a step run in the name of the caller's agent.

        Raises WRONG_AGENT where the agent may not publish it, FLOW_NOT_FOUND, CONTRACT_VIOLATION, DIFFERENT_ANSWER
        where the step run has another outcome already, WRONG_STATUS where the flow would not count it, and
        REQUEST_ID_REUSED.
        """
        flow = await self._store.load_newest(request.flow_type, request.flow_id)
        asked = caller_request(request, caller)
        earlier = recorded_before(flow, asked, agent=caller.agent)
        if earlier is not None:
            return Published(earlier.event_id, earlier.sequence, earlier.kind, already_stored=False)
        step = _own_step(flow, request, caller)
        message = flow.template.contracts.decode(request.data)
        flow.template.contracts.validate(message)
        kind = _kind(flow, step, request)
        event = _event(flow, request, kind, caller.agent)
        event.request.CopyFrom(asked)
        address = Address(
            flow.flow_type, flow.flow_id, kind, caller.agent, event.event_id, envelope.type_of(request.data)
        )
        void = _void(flow, address, event)
        if void is not None:
            return _same(await self._stored(address, timedelta()), event) or _refuse(flow, void)
        for _ in range(_TRIES):
            try:
                sequence = await self._bus.publish(
                    address.subject,
                    event.SerializeToString(),
                    expected_sequence=0,
                    expected_filter=outcome_filter(flow.flow_type, flow.flow_id, caller.agent, event.event_id),
                )
            except (AlreadyStored, WrongSequence):
                stored = await self._stored(address)
                if stored is not None:
                    return _same(stored, event) or _refuse(flow, _ANSWERED)
                # The copy that was there died in flight with its leader.
            else:
                return Published(event.event_id, sequence, kind, already_stored=False)
        raise BrokerUnavailable(f"{address.subject} was refused {_TRIES} times, and nothing is stored there")

    async def _stored(self, address: Address, patience: timedelta = OUTCOME_PATIENCE) -> Recorded | None:
        """The outcome that is stored under the id already."""
        return await self._store.stored_outcome(
            address.flow_type, address.flow_id, address.agent, address.event_id, patience=patience
        )


_TRIES = 5
"""How often an outcome is published that is refused though nothing is stored in its place."""

_ANSWERED = Void("the step run has another answer; it gives one", ErrorReason.ERROR_REASON_DIFFERENT_ANSWER)


def _same(stored: Recorded | None, event: Event) -> Published | None:
    """What is stored, where it has the same data."""
    if stored is None or stored.event.data != event.data:
        return None
    is_ours = bool(event.request.id) and stored.event.request == event.request
    return Published(stored.event_id, stored.sequence, stored.kind, already_stored=not is_ours)


def _void(flow: Flow, address: Address, event: Event) -> Void | None:
    recorded = Recorded(address, event, flow.last_sequence + 1, datetime.now(UTC))
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
    if name not in allowed and name not in {_COMPLETED, _PROGRESS, *_FAILURES}:
        raise _not_yours(flow, f"step {step.name} does not emit {name}; it emits {', '.join(sorted(allowed))}")
    return step


def _not_yours(flow: Flow, text: str) -> HandrailError:
    return HandrailError(ErrorReason.ERROR_REASON_WRONG_AGENT, f"flow {flow.flow_id}: {text}", flow_id=flow.flow_id)


def _kind(flow: Flow, step: StepSpec, request: PublishEventRequest) -> Kind:
    name = envelope.type_of(request.data)
    if name in _FAILURES:
        return Kind.FAILURE
    if name == _PROGRESS:
        return Kind.PROGRESS
    if request.undo_of:
        return Kind.UNDONE
    return Kind.PROPOSAL if flow.template.gates_on(name) else Kind.EVENT


def _event(flow: Flow, request: PublishEventRequest, kind: Kind, agent: str) -> Event:
    root = request.undo_of or (_undo_that_failed(request) if kind is Kind.FAILURE else "") or request.root
    return Event(
        event_id=_event_id(flow, request, kind),
        source=agent,
        flow_type=flow.flow_type,
        flow_id=flow.flow_id,
        template_version=flow.template.version,
        step=request.step,
        root=root,
        run=request.run,
        attempt=request.attempt,
        output_index=request.output_index,
        output_total=request.output_total,
        causation_id=_trigger(flow, request),
        time=envelope.timestamp(datetime.now(UTC)),
        data=request.data,
    )


def _event_id(flow: Flow, request: PublishEventRequest, kind: Kind) -> str:
    match kind:
        case Kind.UNDONE:
            return ids.undone_id(flow.flow_id, request.undo_of)
        case Kind.FAILURE:
            undo_of = _undo_that_failed(request)
            what = "undo-failure" if undo_of else Kind.FAILURE.value
            root = undo_of or request.root
            return ids.attempt_id(what, flow.flow_id, request.step, root, request.run, request.attempt)
        case Kind.PROGRESS:
            counter = StepProgress.FromString(request.data.value).counter
            return ids.progress_id(flow.flow_id, request.step, request.root, request.run, request.attempt, counter)
        case _:
            return ids.outcome_id(flow.flow_id, request.step, request.root, request.run, request.output_index)


def _undo_that_failed(request: PublishEventRequest) -> str:
    """The id of the event whose undo failed, as the failure itself says; empty where a forward step failed."""
    if envelope.type_of(request.data) != StepFailed.DESCRIPTOR.full_name:
        return ""
    return StepFailed.FromString(request.data.value).undo_of


def _trigger(flow: Flow, request: PublishEventRequest) -> str:
    run = flow.runs.get((request.step, request.root))
    return run.trigger.event_id if run is not None else ""
