"""The parts of a flow: step runs, effects, halts, matters. Frozen values; the fold replaces them as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto

from handrail.mesh.flow.starts import NO_STARTS, Starts
from handrail.mesh.template import StepSpec
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import Kind
from handrail.v1.decision_pb2 import Choice, EscalationCause, HaltMode, RuleAction, RuleInputs
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import DivergenceKind
from handrail.v1.template_pb2 import EFFECT_NONE


def attempts(number: int) -> str:
    """A number of attempts, as text for people."""
    return "1 attempt" if number == 1 else f"{number} attempts"


class RunState(Enum):
    """The state of a step run."""

    OWED = auto()
    BACKOFF = auto()
    DONE = auto()
    FAILED = auto()
    NOT_STARTED = auto()
    UNDONE = auto()
    SUPERSEDED = auto()


@dataclass(frozen=True, slots=True)
class StepRun:
    """One run of a step: its trigger and its attempts.

    `attempt` is the current or last one, `budget` the number of allowed attempts. `unknown` are the attempts that may
    have had an unreported effect (they timed out, or the handler killed its process), until an outcome comes or a
    person accepts that there is none. A later attempt reports only for itself. Absences move the deadline from
    `counted_from` on; None: from `since`. `refused` says why an answer of the current attempt is void.

    `asked` is the stream position of the message that the agent receives for the current attempt. `queued` is set once
    that message was found in the agent's queue, `begun` once a worker announced that it began, or has had time to.
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
    refused: str = ""
    unknown: frozenset[int] = frozenset()
    counted_from: datetime | None = None
    starts: Starts = NO_STARTS
    asked: int = 0
    queued: bool = False
    begun: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Its identity within the flow: step and root."""
        return (self.step.name, self.root)

    @property
    def subject(self) -> str:
        """The identity of its current attempt within the step."""
        return f"{self.root}:{self.run}:{self.attempt}"

    @property
    def failure(self) -> str:
        """Why there is no further attempt, as text for people."""
        doubt = "; whether it had its effect is unknown" if self.may_have_effect else ""
        return f"step {self.step.name} failed for good after {attempts(self.attempt)}: {self.last_error}{doubt}"

    @property
    def is_open(self) -> bool:
        """Whether it still waits: for the agent, the backoff, or a person."""
        return self.state in _OPEN

    @property
    def may_have_effect(self) -> bool:
        """Whether an unreported effect may have happened."""
        if self.step.effect == EFFECT_NONE:
            return False
        return self.state is RunState.OWED or (bool(self.unknown) and self.state in (RunState.BACKOFF, RunState.FAILED))


_OPEN = frozenset({RunState.OWED, RunState.BACKOFF, RunState.FAILED, RunState.NOT_STARTED})


class EffectState(Enum):
    """The state of an effect."""

    DONE = auto()
    UNDOING = auto()
    UNDONE = auto()
    UNDONE_BY_HAND = auto()
    ACCEPTED = auto()
    UNDO_FAILED = auto()
    IRREVERSIBLE = auto()


@dataclass(frozen=True, slots=True)
class Effect:
    """A change that a step made outside the stream, reported by `recorded`, and the progress of its undo.

    `attempt` is the current undo attempt, 0 before the first, requested at `since`. `deadline` is set while an attempt
    runs, `retry_at` before the next one. An `orphan` came from a superseded run: it is undone in any case.
    `counted_from`, `asked`, `queued` and `begun` mean the same as in a step run.
    """

    recorded: Recorded
    step: StepSpec
    state: EffectState
    orphan: bool = False
    attempt: int = 0
    budget: int = 1
    asked: int = 0
    since: datetime | None = None
    queued: bool = False
    begun: bool = False
    deadline: datetime | None = None
    counted_from: datetime | None = None
    retry_at: datetime | None = None
    last_error: str = ""
    undone_by: Recorded | None = None
    starts: Starts = NO_STARTS

    @property
    def subject(self) -> str:
        """The identity of its current undo attempt."""
        return f"{self.recorded.event_id}:{self.attempt}"

    @property
    def stands(self) -> bool:
        """Whether a compensation still has to deal with it."""
        return self.state in (EffectState.DONE, EffectState.UNDOING, EffectState.UNDO_FAILED)

    @property
    def stays(self) -> bool:
        """Whether it stands for good: it can't be undone, or a person accepted it."""
        return self.state in (EffectState.IRREVERSIBLE, EffectState.ACCEPTED)


@dataclass(frozen=True, slots=True)
class Halt:
    """The reason why no forward step starts any more.

    `floor` is the stream position of the step to compensate back to: all later effects are undone. 0 undoes all.
    `run_again` are the steps that a person lets run a second time, although their effects stand. `since` is the stream
    position since which the flow is continuously halted: the position of the first of several halts in a row.
    """

    mode: HaltMode.ValueType
    reason: str
    by: str
    to_step: str
    keep_effects: bool
    recorded: Recorded
    since: int
    floor: int = 0
    run_again: frozenset[str] = frozenset()


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
class RuleTrip:
    """A rule that became true at an event: it halts the flow from there on, even before the coordinator sees it.

    `recorded` is set once the decision is recorded, `settled` once its consequence is recorded too. `digest` identifies
    the wording of the rule, `inputs` are the values that its condition read: all readers compute the same.
    """

    rule: str
    event_id: str
    sequence: int
    detail: str
    then: RuleAction.ValueType
    digest: str
    inputs: RuleInputs
    recorded: bool = False
    settled: bool = False


@dataclass(frozen=True, slots=True)
class PendingResolution:
    """A decision that the coordinator has to record next because of a person's resolution."""

    choice: Choice.ValueType
    by: str
    reason: str
    subject_id: str


@dataclass(frozen=True, slots=True)
class Divergence:
    """An action of an agent that `version` of the template does not provide for.

    If it `asks`, the flow is on hold until a person has reviewed it.
    """

    sequence: int
    agent: str
    type: str
    text: str
    kind: DivergenceKind.ValueType
    version: int
    time: datetime
    asks: bool = False


@dataclass(frozen=True, slots=True)
class Migration:
    """A recorded migration to another version of the template."""

    from_version: int
    to_version: int
    by: str
    reason: str
    sequence: int
    time: datetime


@dataclass(frozen=True, slots=True)
class Requested:
    """A call of the API and its record: the valid message, at `sequence` (0 without one yet), and the number of void
    messages before it. `digest` covers the content of the call."""

    rpc: str
    digest: str
    sequence: int = 0
    event_id: str = ""
    kind: Kind = Kind.DECISION
    voids: int = 0


@dataclass(frozen=True, slots=True)
class Void:
    """Why a message is void. With a `reason` other than 0 it belongs into quarantine.

    `divergence` is the kind of divergence, if the reason does not determine it.
    """

    text: str
    reason: ErrorReason.ValueType = ErrorReason.ERROR_REASON_UNSPECIFIED
    divergence: DivergenceKind.ValueType = DivergenceKind.DIVERGENCE_KIND_UNSPECIFIED
