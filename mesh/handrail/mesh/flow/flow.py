"""A flow: plain values, no clock, no I/O.

Only `Flow` itself is copied; the values in it are frozen, and replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto

from handrail.mesh.flow.acts import PendingAct
from handrail.mesh.flow.effect import Effect, EffectState
from handrail.mesh.flow.proposal import Ask, Ballot, Proposal, ProposalState
from handrail.mesh.flow.state import (
    Divergence,
    Escalation,
    Halt,
    Migration,
    PendingResolution,
    Requested,
    RuleTrip,
    Void,
)
from handrail.mesh.flow.step_run import RunState, StepRun
from handrail.mesh.flow.values import replace
from handrail.mesh.template import StepSpec, Template
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Recorded
from handrail.v1.decision_pb2 import FlowStatus, HaltMode
from handrail.v1.template_pb2 import EFFECT_IRREVERSIBLE, EFFECT_NONE

__all__ = [
    "MESSAGE_LIMIT",
    "Ask",
    "Ballot",
    "Divergence",
    "Effect",
    "EffectState",
    "Escalation",
    "Flow",
    "Halt",
    "Migration",
    "PendingResolution",
    "Proposal",
    "ProposalState",
    "Requested",
    "RuleTrip",
    "RunState",
    "StepRun",
    "Verdict",
    "Void",
]

MESSAGE_LIMIT = 900
"""A flow with this many messages is held and escalates, unless its template says another number: a direct read returns
at most 1,024 subjects, and what people decide about the flow then has to fit into the rest."""


class Verdict(Enum):
    """What an agent should do with a delivery, decided on the folded flow."""

    RUN = auto()
    DROP = auto()
    ANSWER_NOT_STARTED = auto()


@dataclass(slots=True)
class Flow:
    """One flow, folded up to `last_sequence`.

    `facts` are the valid events and released proposals, in stream order. `escalations` are the matters that wait for a
    person; `escalated` holds their ids and those of answered matters. Treat a flow as immutable: only the fold changes
    it, on a copy of its own.
    """

    template: Template
    flow_id: str = ""
    requester: str = ""
    first: Recorded | None = None
    last_sequence: int = 0
    last_time: datetime | None = None
    last_span_id: str = ""
    message_count: int = 0
    facts: dict[str, Recorded] = field(default_factory=dict)
    facts_by_type: dict[str, tuple[Recorded, ...]] = field(default_factory=dict)
    runs: dict[tuple[str, str], StepRun] = field(default_factory=dict)
    joined: frozenset[str] = frozenset()
    proposals: dict[str, Proposal] = field(default_factory=dict)
    effects: dict[str, Effect] = field(default_factory=dict)
    halt: Halt | None = None
    compensation_started: bool = False
    escalations: dict[str, Escalation] = field(default_factory=dict)
    escalated: frozenset[str] = frozenset()
    trips: dict[str, RuleTrip] = field(default_factory=dict)
    pending_resolution: PendingResolution | None = None
    closed: FlowStatus.ValueType = FlowStatus.FLOW_STATUS_UNSPECIFIED
    closed_reason: str = ""
    credit: timedelta = timedelta()
    """How far its deadline was moved because of absences."""
    counted_from: datetime | None = None
    """From when on absences move its deadline; None: from its start."""
    divergences: tuple[Divergence, ...] = ()
    looked_at: int = 0
    """The stream position up to which a person has reviewed the divergences that ask for one."""
    migrations: tuple[Migration, ...] = ()
    former_steps: Mapping[str, StepSpec] = field(default_factory=dict)
    """Steps of earlier versions of the flow that its current version lacks; by name."""
    requests: Mapping[tuple[str, str, str], Requested] = field(default_factory=dict)
    """Recorded calls, by the agent they spoke for, the caller and the request id."""
    acts: Mapping[str, PendingAct] = field(default_factory=dict)
    """Acts that need two persons, by id, whatever came of them."""
    void: dict[int, Void] = field(default_factory=dict)

    @property
    def versions(self) -> frozenset[int]:
        """The versions that it is or was pinned to: messages in progress may claim any of them."""
        return frozenset({self.template.version, *(migration.from_version for migration in self.migrations)})

    @property
    def flow_type(self) -> str:
        """The template's name."""
        return self.template.name

    @property
    def key(self) -> str:
        """The business key that its id follows from; empty if it has none, or if its first event does not say it.

        Whoever begins a flow writes this field: another key than its own does not count.
        """
        said = "" if self.first is None else self.first.event.key
        is_its_own = 0 < len(said) <= ids.LONGEST_KEY and ids.flow_id_from_key(self.flow_type, said) == self.flow_id
        return said if is_its_own else ""

    @property
    def message_limit(self) -> int:
        """With how many messages it is held."""
        return self.template.max_messages or MESSAGE_LIMIT

    @property
    def start_time(self) -> datetime:
        """When its first event was stored. Raises ValueError before that."""
        if self.first is None:
            raise ValueError("the flow has no event yet")
        return self.first.time

    @property
    def deadline(self) -> datetime:
        """The deadline of the whole flow. Raises ValueError before its first event."""
        return self.start_time + self.template.deadline + self.credit

    @property
    def etag(self) -> str:
        """Changes with every message of the flow."""
        return f"{self.last_sequence:x}"

    @property
    def is_halted(self) -> bool:
        """Whether no forward step starts any more, because of a recorded halt, a rule or a divergence."""
        return self.halt is not None or self.diverged is not None or any(not t.settled for t in self.trips.values())

    @property
    def diverged(self) -> Divergence | None:
        """The first divergence that a person still has to review, or None."""
        return next((each for each in self.divergences if each.asks and each.sequence > self.looked_at), None)

    @property
    def is_held(self) -> bool:
        """Whether it is on hold for a person, and may still continue unchanged."""
        return self.halt is not None and self.halt.mode == HaltMode.HALT_MODE_HOLD

    @property
    def goes_on(self) -> bool:
        """Whether it continues, now or after a person's answer: votes count, requests expire, rules trip."""
        return self.halt is None or self.is_held

    @property
    def is_undoing(self) -> bool:
        """Whether its effects are being undone."""
        return (
            self.halt is not None
            and self.halt.mode in (HaltMode.HALT_MODE_COMPENSATE, HaltMode.HALT_MODE_CANCEL)
            and not self.halt.keep_effects
        )

    def copy(self) -> Flow:
        """An independent copy, for the fold to change."""
        return replace(
            self,
            facts=dict(self.facts),
            facts_by_type=dict(self.facts_by_type),
            runs=dict(self.runs),
            proposals=dict(self.proposals),
            effects=dict(self.effects),
            escalations=dict(self.escalations),
            trips=dict(self.trips),
            void=dict(self.void),
        )

    def runs_triggered_by(self, event_id: str) -> Iterator[StepRun]:
        """The step runs that this event starts. Of a join, only the last input does."""
        return (run for run in self.runs.values() if run.trigger.event_id == event_id)

    def verdict(self, *, step: str, root: str, run: int, attempt: int, may_have_started: bool) -> Verdict:
        """What to do with a delivery for an attempt of a step run.

        `may_have_started` is true for a redelivery. In a halted flow, a step that may have started, in this attempt or
        an earlier one, runs again under its idempotency key: then its outcome is known and can be undone. Any other
        step is answered with StepNotStarted, even after its deadline. So is a step that `never_begins`.
        """
        wanted = self.runs.get((step, root))
        if wanted is None or wanted.run != run:
            return Verdict.DROP
        current = wanted.state is RunState.OWED and wanted.attempt == attempt
        if not self.is_halted:
            return Verdict.RUN if current else Verdict.DROP
        if current and self.never_begins(wanted):
            return Verdict.ANSWER_NOT_STARTED
        if current and (may_have_started or wanted.unknown) and wanted.step.effect != EFFECT_NONE:
            return Verdict.RUN
        if current or (attempt in wanted.unknown and not may_have_started):
            return Verdict.ANSWER_NOT_STARTED
        return Verdict.DROP

    def never_begins(self, run: StepRun) -> bool:
        """Whether no worker begins this run in the current state: its effect is irreversible, and its trigger came
        while the flow was halted. Workers read the flow before they begin such a step; whoever answers an external one
        may not.
        """
        irreversible = run.step.effect == EFFECT_IRREVERSIBLE and not run.step.external
        return self.halt is not None and irreversible and run.trigger.sequence > self.halt.since

    def wants_undo(self, event_id: str, attempt: int) -> bool:
        """Whether this attempt to undo this event is still pending."""
        effect = self.effects.get(event_id)
        return effect is not None and effect.deadline is not None and effect.attempt == attempt

    def undo_targets(self) -> list[Effect]:
        """The effects to undo in the current state, newest first."""
        if not self.effects:
            return []
        floor = self.halt.floor if self.halt is not None and self.is_undoing else self.last_sequence
        wanted = [e for e in self.effects.values() if e.stands and (e.orphan or e.recorded.sequence > floor)]
        return sorted(wanted, key=lambda effect: effect.recorded.sequence, reverse=True)

    def effects_that_stay(self, floor: int) -> list[Effect]:
        """The effects after a position in the stream that no compensation will undo, in stream order.

        If the flow continues from that position, their steps run again and repeat them.
        """
        return [e for e in self.effects.values() if e.stays and not e.orphan and e.recorded.sequence > floor]

    def sequence_of_step(self, step: str) -> int:
        """The stream position of the newest fact of a step; 0 without one."""
        return max((r.sequence for r in self.facts.values() if r.event.step == step), default=0)

    def open_outcomes(self) -> list[StepRun]:
        """The step runs with an unknown outcome: they may have had an effect."""
        return [run for run in self.runs.values() if run.may_have_effect]

    def awaited_runs(self) -> list[StepRun]:
        """The step runs with watched and repeated attempts; in a halted flow only those that may have an effect."""
        return self.open_outcomes() if self.is_halted else list(self.runs.values())
