"""What a flow consists of: step runs, effects, halts, matters. Frozen values; the fold replaces them whole."""

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
    """A number of attempts, for people."""
    return "1 attempt" if number == 1 else f"{number} attempts"


class RunState(Enum):
    """Where a step run stands."""

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

    `attempt` is the current or last one, `budget` the number of attempts allowed. `unknown` are the attempts that may
    have had their effect without saying so (timed out, or the handler killed its process): until an outcome comes, or a
    person accepts that there is none. What a later attempt says, it says for itself alone. `counted_from` is from when
    absences count against the deadline; None: from `since`. `refused`: why an answer of the current attempt is void.

    `asked` is the stream position of the message that the agent is handed for the current attempt. `queued` is set once
    that was found in the agent's queue, `begun` once a worker said that it began it, or has had time to say so.
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
        """What names it within its flow: step and root."""
        return (self.step.name, self.root)

    @property
    def subject(self) -> str:
        """What names its current attempt within the step."""
        return f"{self.root}:{self.run}:{self.attempt}"

    @property
    def failure(self) -> str:
        """Why there is no further attempt, for people."""
        doubt = "; whether it had its effect is unknown" if self.may_have_effect else ""
        return f"step {self.step.name} failed for good after {attempts(self.attempt)}: {self.last_error}{doubt}"

    @property
    def is_open(self) -> bool:
        """Whether something is still to come: from the agent, after the backoff, or from a person."""
        return self.state in _OPEN

    @property
    def may_have_effect(self) -> bool:
        """Whether an effect may have happened that nobody knows of yet."""
        if self.step.effect == EFFECT_NONE:
            return False
        return self.state is RunState.OWED or (bool(self.unknown) and self.state in (RunState.BACKOFF, RunState.FAILED))


_OPEN = frozenset({RunState.OWED, RunState.BACKOFF, RunState.FAILED, RunState.NOT_STARTED})


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

    `attempt` is the current undo attempt, 0 before the first, asked for at `since`; while it runs there is a
    `deadline`, before the next one a `retry_at`. An `orphan` came from a run that had been superseded: it is undone
    whatever the flow does. `counted_from`, `asked`, `queued` and `begun` are as those of a step run.
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
        """What names its current attempt at the undo."""
        return f"{self.recorded.event_id}:{self.attempt}"

    @property
    def stands(self) -> bool:
        """Whether a compensation still has to deal with it."""
        return self.state in (EffectState.DONE, EffectState.UNDOING, EffectState.UNDO_FAILED)

    @property
    def stays(self) -> bool:
        """Whether it stands for good: it can't be undone, or a person took it as it is."""
        return self.state in (EffectState.IRREVERSIBLE, EffectState.ACCEPTED)


@dataclass(frozen=True, slots=True)
class Halt:
    """Why no forward step starts any more.

    `floor` is the stream position of the step to compensate back to: what came after it is undone. 0 undoes all.
    `run_again` are the steps that a person lets run a second time, though what they did stands. `since` is the stream
    position from which on the flow has been halted without a break: that of the first of several halts in a row.
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
    """A rule that became true at an event: the flow is halted from there on, whether the coordinator saw it or not.

    `recorded` once the decision says so, `settled` once its consequence is recorded too. `digest` names the wording of
    the rule, `inputs` are what its condition read: every reader computes the same.
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
    """What a person's resolution asks the coordinator to record next."""

    choice: Choice.ValueType
    by: str
    reason: str
    subject_id: str


@dataclass(frozen=True, slots=True)
class Divergence:
    """Something that `version` of the template does not foresee.

    One that `asks` holds the flow until a person has looked at it.
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
    """A move to another version of the template, as it was recorded."""

    from_version: int
    to_version: int
    by: str
    reason: str
    sequence: int
    time: datetime


@dataclass(frozen=True, slots=True)
class Requested:
    """A call of the API, and what it had recorded: the message that counts, at `sequence` (0 where none does yet), and
    how many were void before. `digest` is that of what was asked."""

    rpc: str
    digest: str
    sequence: int = 0
    event_id: str = ""
    kind: Kind = Kind.DECISION
    voids: int = 0


@dataclass(frozen=True, slots=True)
class Void:
    """Why a message does not count. A `reason` other than 0 says that it belongs into quarantine.

    `divergence` says in what way the agent left its template, where the reason does not.
    """

    text: str
    reason: ErrorReason.ValueType = ErrorReason.ERROR_REASON_UNSPECIFIED
    divergence: DivergenceKind.ValueType = DivergenceKind.DIVERGENCE_KIND_UNSPECIFIED
