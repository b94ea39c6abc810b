"""A flow as the fold sees it: plain values, no clock, no I/O.

`Flow` is the only value that is copied; everything in it is frozen and replaced whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, auto

from handrail.mesh.envelope import Recorded
from handrail.mesh.template import EffectKind, GateSpec, StepSpec, Template
from handrail.v1.decision_pb2 import Choice, EscalationCause, FlowStatus, HaltMode
from handrail.v1.error_reason_pb2 import ErrorReason

MESSAGE_LIMIT = 900
"""Messages after which a flow escalates: direct reads of one flow end at 1,024 subjects."""


class RunState(Enum):
    """Where a step run, or an undo, stands."""

    OWED = auto()
    BACKOFF = auto()
    DONE = auto()
    FAILED = auto()
    NOT_STARTED = auto()
    UNDONE = auto()
    SUPERSEDED = auto()


@dataclass(frozen=True, slots=True)
class StepRun:
    """One run of a step: what triggered it, and how its attempts went.

    `attempt` is the current or last one, `budget` the number of attempts allowed. `outcome_unknown` is set where the
    last attempt timed out: it may have had its effect.
    """

    step: StepSpec
    root: str
    trigger: Recorded
    inputs: tuple[str, ...]
    since: datetime
    deadline: datetime
    budget: int
    run: int = 0
    attempt: int = 1
    state: RunState = RunState.OWED
    retry_at: datetime | None = None
    outputs: Mapping[int, str] = field(default_factory=dict)
    output_total: int = 0
    ended: datetime | None = None
    last_error: str = ""
    outcome_unknown: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """What names it within its flow: step and root."""
        return (self.step.name, self.root)

    @property
    def is_open(self) -> bool:
        """Whether something is still to come: from the agent, after the backoff, or from a person."""
        return self.state in _OPEN

    @property
    def may_have_effect(self) -> bool:
        """Whether an effect may have happened that nobody knows of yet."""
        if self.step.effect is EffectKind.NONE:
            return False
        return self.state is RunState.OWED or (
            self.outcome_unknown and self.state in (RunState.BACKOFF, RunState.FAILED)
        )


_OPEN = frozenset({RunState.OWED, RunState.BACKOFF, RunState.FAILED, RunState.NOT_STARTED})


class ProposalState(Enum):
    """Where a proposal stands."""

    EVALUATED = auto()
    PENDING = auto()
    APPROVED = auto()
    REJECTED = auto()
    EXPIRED = auto()
    RELEASED = auto()
    WITHDRAWN = auto()


@dataclass(frozen=True, slots=True)
class Ask:
    """One gate that asks for people: why, who may not vote, and who voted yes."""

    gate: GateSpec
    reason: str
    requester: str = ""
    voters: frozenset[str] = frozenset()
    passed: bool = False

    @property
    def nobody_qualifies(self) -> bool:
        """Whether the gate bars a requester that can't be told."""
        return self.gate.not_the_requester and not self.requester


@dataclass(frozen=True, slots=True)
class Ballot:
    """One vote that counted."""

    voter: str
    approve: bool
    comment: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Proposal:
    """An event that wants through its gates. `asks` are the gates whose condition holds, or can't be evaluated."""

    recorded: Recorded
    asks: tuple[Ask, ...]
    digest: str
    state: ProposalState = ProposalState.EVALUATED
    ballots: tuple[Ballot, ...] = ()
    requested_at: datetime | None = None
    refused_by: Recorded | None = None

    @property
    def undecided(self) -> bool:
        """Whether it is neither a fact nor refused nor withdrawn."""
        return self.state in _UNDECIDED

    def expiry(self, ask: Ask) -> datetime | None:
        """When this gate's request expires; None if never, or not asked yet."""
        after: timedelta | None = ask.gate.expires_after
        if self.requested_at is None or after is None or ask.passed:
            return None
        return self.requested_at + after

    @property
    def expires_at(self) -> datetime | None:
        """The first expiry among the gates that still ask."""
        return min((due for ask in self.asks if (due := self.expiry(ask)) is not None), default=None)


_UNDECIDED = frozenset({ProposalState.EVALUATED, ProposalState.PENDING, ProposalState.APPROVED, ProposalState.EXPIRED})


class EffectState(Enum):
    """Where an effect stands."""

    DONE = auto()
    UNDOING = auto()
    UNDONE = auto()
    UNDONE_BY_HAND = auto()
    ACCEPTED = auto()
    UNDO_FAILED = auto()
    IRREVERSIBLE = auto()


@dataclass(frozen=True, slots=True)
class Effect:
    """What a step changed outside the stream, reported by `recorded`, and how its undo goes.

    `attempt` is the current undo attempt, 0 before the first. An `orphan` came from a run that had been superseded: it
    is undone whatever the flow does.
    """

    recorded: Recorded
    step: StepSpec
    state: EffectState
    orphan: bool = False
    attempt: int = 0
    budget: int = 1
    deadline: datetime | None = None
    retry_at: datetime | None = None
    last_error: str = ""
    undone_by: Recorded | None = None

    @property
    def stands(self) -> bool:
        """Whether a compensation still has to deal with it."""
        return self.state in (EffectState.DONE, EffectState.UNDOING, EffectState.UNDO_FAILED)


@dataclass(frozen=True, slots=True)
class Halt:
    """Why no forward step starts any more."""

    mode: HaltMode.ValueType
    reason: str
    by: str
    to_step: str
    keep_effects: bool
    request_id: str
    recorded: Recorded


@dataclass(frozen=True, slots=True)
class Escalation:
    """A matter that waits for a person."""

    escalation_id: str
    cause: EscalationCause.ValueType
    subject_id: str
    step: str
    reason: str
    choices: tuple[Choice.ValueType, ...]
    opened: datetime


@dataclass(frozen=True, slots=True)
class Trip:
    """A rule that became true at an event: from there on the flow is halted, whether the coordinator has seen it or
    not.

    `recorded` once the decision says so, `settled` once its consequence is recorded too.
    """

    rule: str
    event_id: str
    sequence: int
    detail: str
    recorded: bool = False
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person's resolution asks the coordinator to record next."""

    choice: Choice.ValueType
    by: str
    reason: str
    subject_id: str


@dataclass(frozen=True, slots=True)
class Divergence:
    """Something the template does not foresee."""

    sequence: int
    agent: str
    type: str
    text: str


@dataclass(frozen=True, slots=True)
class Void:
    """Why a message does not count. A `reason` other than 0 says that it belongs into quarantine."""

    text: str
    reason: ErrorReason.ValueType = ErrorReason.ERROR_REASON_UNSPECIFIED


class Verdict(Enum):
    """What an agent does with a delivery, once it has folded the flow."""

    RUN = auto()
    DROP = auto()
    ANSWER_NOT_STARTED = auto()


@dataclass(slots=True)
class Flow:
    """One flow, folded up to `last_sequence`.

    `facts` are the events and released proposals that count, in stream order. Treat it as a value: only the fold
    changes it, on a copy of its own.
    """

    template: Template
    flow_id: str = ""
    requester: str = ""
    first: Recorded | None = None
    last_sequence: int = 0
    last_time: datetime | None = None
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
    trips: dict[str, Trip] = field(default_factory=dict)
    wish: Wish | None = None
    closed: FlowStatus.ValueType = FlowStatus.FLOW_STATUS_UNSPECIFIED
    closed_reason: str = ""
    divergences: tuple[Divergence, ...] = ()
    void: dict[int, Void] = field(default_factory=dict)

    @property
    def flow_type(self) -> str:
        """The template's name."""
        return self.template.name

    @property
    def start_time(self) -> datetime:
        """When its first event was stored; only of a flow that has begun."""
        if self.first is None:
            raise ValueError("the flow has no event yet")
        return self.first.time

    @property
    def deadline(self) -> datetime:
        """When the flow as a whole is to be done; only of a flow that has begun."""
        return self.start_time + self.template.deadline

    @property
    def etag(self) -> str:
        """Changes with every message of the flow."""
        return f"{self.last_sequence:x}"

    @property
    def is_halted(self) -> bool:
        """Whether no forward step starts any more: by a recorded halt, or by a rule that tripped."""
        return self.halt is not None or any(not trip.settled for trip in self.trips.values())

    @property
    def is_undoing(self) -> bool:
        """Whether its effects are being undone."""
        return (
            self.halt is not None
            and self.halt.mode in (HaltMode.HALT_MODE_COMPENSATE, HaltMode.HALT_MODE_CANCEL)
            and not self.halt.keep_effects
        )

    def copy(self) -> Flow:
        """A flow that can change without changing this one."""
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
        """The step runs that the delivery of this event starts; for a join, only its last input does."""
        return (run for run in self.runs.values() if run.trigger.event_id == event_id)

    def verdict(self, *, step: str, root: str, run: int, attempt: int, may_have_started: bool) -> Verdict:
        """What to do with a delivery for an attempt of a step run.

        `may_have_started` is true for a redelivery and for a retry: in a halted flow such a step runs again under its
        key, so that its outcome is known and can be undone.
        """
        owed = self.runs.get((step, root))
        if owed is None or owed.run != run or owed.attempt != attempt or owed.state is not RunState.OWED:
            return Verdict.DROP
        if not self.is_halted:
            return Verdict.RUN
        if may_have_started and owed.step.effect is not EffectKind.NONE:
            return Verdict.RUN
        return Verdict.ANSWER_NOT_STARTED

    def wants_undo(self, event_id: str, attempt: int) -> bool:
        """Whether the undo of this event, in this attempt, is still owed."""
        effect = self.effects.get(event_id)
        return effect is not None and effect.state is EffectState.UNDOING and effect.attempt == attempt

    def undo_targets(self) -> list[Effect]:
        """The effects that the compensation under way has to undo, newest first."""
        if not self.is_undoing or self.halt is None:
            return []
        floor = self.sequence_of_step(self.halt.to_step) if self.halt.to_step else 0
        standing = [e for e in self.effects.values() if e.stands and e.recorded.sequence > floor]
        return sorted(standing, key=lambda effect: effect.recorded.sequence, reverse=True)

    def sequence_of_step(self, step: str) -> int:
        """The stream position of the newest fact of a step; 0 if it has none."""
        return max((r.sequence for r in self.facts.values() if r.event.step == step), default=0)

    def open_outcomes(self) -> list[StepRun]:
        """The step runs that may have had an effect that nobody knows of yet."""
        return [run for run in self.runs.values() if run.may_have_effect]
