"""The parts of a compiled template: steps, gates and rules, as typed values with their defaults filled in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.message import Message

from handrail.mesh.conditions.policy import Count, Policy
from handrail.v1 import template_pb2 as pb
from handrail.v1.decision_pb2 import ApprovalRefused, RuleAction
from handrail.v1.failure_pb2 import StepCompleted

APPROVAL_REFUSED = ApprovalRefused.DESCRIPTOR.full_name
"""The one decision that a step may wait for."""

STEP_COMPLETED = StepCompleted.DESCRIPTOR.full_name
"""The outcome of a step that emits nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySpec:
    """How many attempts are made, including the first one, and how long to wait between them."""

    max_attempts: int = 1
    initial_backoff: timedelta = timedelta(seconds=1)
    multiplier: float = 2.0
    max_backoff: timedelta = timedelta(seconds=60)

    def backoff(self, failed_attempts: int) -> timedelta:
        """The wait after this many failed attempts, from 1. It grows exponentially up to `max_backoff`."""
        if not self.initial_backoff:
            return timedelta()
        # The contract allows a multiplier of 100: beyond the hundredth attempt a float would overflow.
        growth = self.multiplier ** min(max(failed_attempts - 1, 0), 100)
        if growth >= self.max_backoff / self.initial_backoff:
            return self.max_backoff
        return self.initial_backoff * growth


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoSpec:
    """How an effect is undone. `emits` are the messages that may report it, StepCompleted among them."""

    timeout: timedelta
    retry: RetrySpec
    emits: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinSpec:
    """One input of a join: how many facts of a type."""

    type: str
    count: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """After these events, this agent publishes one of those events within this time.

    Either `after` (any one triggers a run) or `joins` (all must exist) has elements. `emits` is never empty: without
    messages in the template, a step emits StepCompleted. `max_outputs` is how many messages one run may answer with;
    None means no limit.
    """

    name: str
    agent: str
    after: frozenset[str]
    joins: tuple[JoinSpec, ...]
    emits: frozenset[str]
    effect: pb.Effect.ValueType
    timeout: timedelta
    retry: RetrySpec
    on_failure: pb.FailureAction.ValueType
    undo: UndoSpec | None
    max_outputs: int | None = None
    start_within: timedelta | None = None
    """How long an attempt may wait before it begins; None: while its agent is at work and the flow has time."""
    external: bool = False
    """Whether no worker runs it: its outcome comes through the API."""

    def allows(self, outputs: int) -> bool:
        """Whether one run may answer with this many messages."""
        return self.max_outputs is None or outputs <= self.max_outputs

    @property
    def waits_for(self) -> frozenset[str]:
        """Every type that triggers the step, alone or with others."""
        return self.after | {join.type for join in self.joins}


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    """A condition on proposals of one type, and who may approve them. Without `when` it always asks."""

    name: str
    on: str
    when: Policy | None
    roles: frozenset[str]
    quorum: int
    not_the_requester: bool
    requester_field: str
    expires_after: timedelta | None
    on_expiry: pb.ExpiryAction.ValueType
    on_reject: pb.RejectAction.ValueType

    def requester(self, proposal: Message) -> str:
        """The text in the proposal's `requester_field`; empty if the gate names no field or the field is empty."""
        value: object = proposal
        for name in self.requester_field.split(".") if self.requester_field else ():
            value = getattr(value, name)
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSpec:
    """A condition on the whole flow, evaluated at each fact it names. `digest` identifies its wording."""

    name: str
    on: frozenset[str]
    when: Policy
    then: RuleAction.ValueType
    digest: str
