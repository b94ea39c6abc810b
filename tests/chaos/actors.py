"""Scripted agents, as simple as possible: they read the flow and answer the pending steps."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from google.protobuf.message import Message

from handrail.mesh.bus import Bus
from handrail.mesh.errors import AlreadyStored
from handrail.mesh.flow import Effect, EffectState, Flow, RunState, StepRun
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import pack
from handrail.mesh.wire.subjects import Address, Kind
from handrail.v1.event_pb2 import Event
from handrail.v1.failure_pb2 import StepFailed, StepNotStarted
from handrail.v1.template_pb2 import EFFECT_NONE

Answer = Callable[[StepRun], Message | None]
"""An agent's answer to an attempt: an outcome, a StepFailed, or None for silence."""

UndoAnswer = Callable[[Effect], Message]


@dataclass
class Script:
    """The answers of one story's agents. Steps not listed answer with `default`."""

    steps: dict[str, Answer]
    undo: UndoAnswer
    effects: Counter[str] = field(default_factory=Counter)
    """Counts effects by idempotency key. The handlers are idempotent, as those of users should be."""

    undone: set[str] = field(default_factory=set)


class Agents:
    """All agents in one: they read the flow and answer each pending attempt once."""

    def __init__(self, bus: Bus, store: FlowStore, script: Script) -> None:
        self._bus = bus
        self._store = store
        self._script = script
        self._answered: set[str] = set()

    async def run(self, flow_type: str, flow_id: str) -> None:
        """Answer until cancelled."""
        while True:
            flow = await self._store.load(flow_type, flow_id)
            for run in list(flow.runs.values()):
                if run.state is RunState.OWED:
                    await self._answer(flow, run)
            for effect in list(flow.effects.values()):
                if effect.state is EffectState.UNDOING and effect.deadline is not None:
                    await self._undo(flow, effect)
            await asyncio.sleep(0.01)

    async def _answer(self, flow: Flow, run: StepRun) -> None:
        seen = ids.attempt_id("seen", flow.flow_id, run.step.name, run.root, run.run, run.attempt)
        if seen in self._answered:
            return
        self._answered.add(seen)
        forward = not flow.is_halted
        message = self._script.steps[run.step.name](run) if forward else StepNotStarted(text="the flow is halted")
        if message is None:
            return
        kind, index_id = _kind_and_id(flow, run, message)
        if kind in (Kind.EVENT, Kind.PROPOSAL) and run.step.effect != EFFECT_NONE:
            self._script.effects[ids.idempotency_key(flow.flow_id, run.step.name, run.root, run.run)] += 1
        await self._publish(
            flow, kind, run.step.agent, index_id, message, step=run.step.name, root=run.root, run=run.run,
            attempt=run.attempt, cause=run.trigger.event_id,
        )  # fmt: skip

    async def _undo(self, flow: Flow, effect: Effect) -> None:
        done = effect.recorded
        seen = ids.attempt_id("undo-seen", flow.flow_id, effect.step.name, done.event_id, 0, effect.attempt)
        if seen in self._answered:
            return
        self._answered.add(seen)
        message = self._script.undo(effect)
        failed = isinstance(message, StepFailed)
        if failed:
            event_id = ids.attempt_id(
                "undo-failure", flow.flow_id, effect.step.name, done.event_id, done.event.run, effect.attempt
            )
        else:
            event_id = ids.undone_id(flow.flow_id, done.event_id)
            self._script.undone.add(done.event_id)
        await self._publish(
            flow, Kind.FAILURE if failed else Kind.UNDONE, effect.step.agent, event_id, message,
            step=effect.step.name, root=done.event_id, run=done.event.run, attempt=effect.attempt, cause=done.event_id,
        )  # fmt: skip

    async def _publish(
        self,
        flow: Flow,
        kind: Kind,
        agent: str,
        event_id: str,
        message: Message,
        *,
        step: str,
        root: str,
        run: int,
        attempt: int,
        cause: str,
    ) -> None:
        address = Address(flow.flow_type, flow.flow_id, kind, agent, event_id, message.DESCRIPTOR.full_name)
        event = Event(
            event_id=event_id,
            source=agent,
            flow_type=flow.flow_type,
            flow_id=flow.flow_id,
            template_version=flow.template.version,
            step=step,
            root=root,
            run=run,
            attempt=attempt,
            output_total=1,
            causation_id=cause,
            data=pack(message),
        )
        with suppress(AlreadyStored):
            await self._bus.publish(address.subject, event.SerializeToString())


def _kind_and_id(flow: Flow, run: StepRun, message: Message) -> tuple[Kind, str]:
    if isinstance(message, StepFailed | StepNotStarted):
        return Kind.FAILURE, ids.attempt_id(
            Kind.FAILURE.value, flow.flow_id, run.step.name, run.root, run.run, run.attempt
        )
    gated = flow.template.gates_on(message.DESCRIPTOR.full_name)
    event_id = ids.outcome_id(flow.flow_id, run.step.name, run.root, run.run, 0)
    return (Kind.PROPOSAL if gated else Kind.EVENT), event_id
