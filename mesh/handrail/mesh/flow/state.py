"""Parts of a flow: halts, escalations, rule trips, requests. Frozen values; the fold replaces them as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import Kind
from handrail.v1.decision_pb2 import Choice, EscalationCause, HaltMode, RuleAction, RuleInputs
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import DivergenceKind


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
