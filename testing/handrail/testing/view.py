"""A flow, seen from a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from google.protobuf.message import Message

from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Escalation, Flow, Proposal, ProposalState, RunState, StepRun
from handrail.mesh.flow.acts import PendingAct
from handrail.mesh.fold import fold, is_final, pinned_version, status
from handrail.mesh.streams import FLOW
from handrail.mesh.template import Template
from handrail.mesh.template.persons import ActState
from handrail.mesh.wire import envelope
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import flow_filter
from handrail.testing.memory import MemoryBus
from handrail.v1.decision_pb2 import FlowStatus

M = TypeVar("M", bound=Message)


class FlowView:
    """One flow. Each access folds it again, so it always shows the present state."""

    def __init__(self, bus: MemoryBus, templates: Sequence[Template], flow_type: str, flow_id: str) -> None:
        self._bus = bus
        self._templates = templates
        self.flow_type = flow_type
        self.flow_id = flow_id

    @property
    def history(self) -> list[Recorded]:
        """Its readable messages, in stream order."""
        readable = []
        for message in self._bus.matching(FLOW, flow_filter(self.flow_type, self.flow_id)):
            try:
                readable.append(
                    envelope.decode(message.subject, message.body, sequence=message.sequence, time=message.time)
                )
            except HandrailError:
                continue  # a hostile test published it; it is in quarantine
        return readable

    @property
    def flow(self) -> Flow:
        """The flow folded from its messages."""
        history = self.history
        version = pinned_version(history)
        versions = {each.version: each for each in self._templates if each.name == self.flow_type}
        return fold(versions[version], history, versions)

    @property
    def status(self) -> str:
        """`RUNNING`, `WAITING_APPROVAL`, `COMPLETED`, …"""
        return FlowStatus.Name(status(self.flow)).removeprefix("FLOW_STATUS_")

    def facts(self, message: type[M]) -> list[M]:
        """The facts of this type that count, oldest first."""
        recorded = self.flow.facts_by_type.get(message.DESCRIPTOR.full_name, ())
        return [message.FromString(each.event.data.value) for each in recorded]

    def recorded(self, message: type[M]) -> list[M]:
        """Every message of this type in the flow, of any kind, whether or not it counts."""
        name = message.DESCRIPTOR.full_name
        return [message.FromString(each.event.data.value) for each in self.history if each.type == name]

    @property
    def owed(self) -> list[StepRun]:
        """The pending step runs; empty once the flow has ended."""
        return [] if is_final(self.flow) else [run for run in self.flow.runs.values() if run.state is RunState.OWED]

    @property
    def approvals(self) -> list[Proposal]:
        """The proposals that wait for approval."""
        return [p for p in self.flow.proposals.values() if p.state is ProposalState.PENDING]

    @property
    def acts(self) -> list[PendingAct]:
        """The acts that wait for a second person."""
        return [act for act in self.flow.acts.values() if act.state is ActState.PENDING]

    @property
    def escalations(self) -> list[Escalation]:
        """The escalations that wait for a person."""
        return list(self.flow.escalations.values())

    @property
    def story(self) -> str:
        """One line per message: time since the first, kind, agent, type, and whether it is void."""
        flow = self.flow
        lines = []
        for recorded in self.history:
            since = recorded.time - self.history[0].time
            event = recorded.event
            line = f"+{since} {recorded.kind.value} {recorded.agent} {recorded.type.rpartition('.')[2]}"
            if event.step:
                line += f" step={event.step} run={event.run} attempt={event.attempt}"
            if recorded.sequence in flow.void:
                line += f" VOID: {flow.void[recorded.sequence].text}"
            lines.append(line)
        return "\n".join([*lines, f"= {self.status}"])
