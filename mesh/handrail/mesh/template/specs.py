"""The parts of a compiled template: steps, gates and rules, as typed values with their defaults filled in."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from handrail.mesh.conditions.policy import Count, Policy
from handrail.mesh.contracts import Contracts
from handrail.v1 import template_pb2 as pb
from handrail.v1.decision_pb2 import ApprovalRefused, RuleAction
from handrail.v1.failure_pb2 import StepCompleted

APPROVAL_REFUSED = ApprovalRefused.DESCRIPTOR.full_name
"""The one decision that a step may wait for."""

STEP_COMPLETED = StepCompleted.DESCRIPTOR.full_name
"""The outcome of a step that emits nothing."""

LONGEST = timedelta(days=36_525)
"""A hundred years. The check bounds durations to 366 days; a template that was stored before it did may say more, and
its flows are to be read and ended all the same: a date takes no more than the year 9999.
"""

_FASTEST = 100.0

_Value = TypeVar("_Value", bound=int)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySpec:
    """How often an attempt is made, the first one included, and how long to wait in between."""

    max_attempts: int = 1
    initial_backoff: timedelta = timedelta(seconds=1)
    multiplier: float = 2.0
    max_backoff: timedelta = timedelta(seconds=60)

    def backoff(self, failed_attempts: int) -> timedelta:
        """The wait after so many failed attempts, from 1: exponential, and never above `max_backoff`."""
        if not self.initial_backoff:
            return timedelta()
        # The contract allows a multiplier of 100: beyond the hundredth attempt a float would overflow.
        growth = self.multiplier ** min(max(failed_attempts - 1, 0), 100)
        if growth >= self.max_backoff / self.initial_backoff:
            return self.max_backoff
        return self.initial_backoff * growth


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoSpec:
    """How an effect is undone. `emits` are the messages that may report it; StepCompleted always may."""

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

    Either `after` (any one triggers a run) or `joins` (all have to be there) has elements. `emits` is never empty: a
    step for which the template names nothing emits StepCompleted. `max_outputs` is how many messages one run may answer
    with; None where nothing limits it.
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
    """How long an attempt may wait to be begun; None: as long as its agent is at work and the flow has time."""

    def allows(self, outputs: int) -> bool:
        """Whether one run may answer with so many messages."""
        return self.max_outputs is None or outputs <= self.max_outputs

    @property
    def waits_for(self) -> frozenset[str]:
        """Every type that triggers the step, alone or with others."""
        return self.after | {join.type for join in self.joins}


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    """A condition on proposals of one type, and who may let them pass. Without `when` it always asks."""

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
        """The text in the proposal's `requester_field`; empty where the gate names no field, or the field is empty."""
        value: object = proposal
        for name in self.requester_field.split(".") if self.requester_field else ():
            value = getattr(value, name)
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSpec:
    """A condition on the whole flow, evaluated at each fact it names. `digest` names its wording, in every version."""

    name: str
    on: frozenset[str]
    when: Policy
    then: RuleAction.ValueType
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What conditions of a template may speak of: the types of its facts, and those that it begins with."""

    contracts: Contracts
    facts: frozenset[str]
    starts: frozenset[str]

    @classmethod
    def of(cls, proto: pb.FlowTemplate, contracts: Contracts) -> Terms:
        """The terms of a template."""
        return cls(contracts=contracts, facts=fact_types(proto), starts=frozenset(proto.starts_with))

    def known(self) -> Terms:
        """Without the types that the contracts don't have."""
        known = self.contracts.knows
        return replace(self, facts=frozenset(filter(known, self.facts)), starts=frozenset(filter(known, self.starts)))

    def parse(self, text: str, event_types: Collection[str]) -> Policy:
        """A condition, asked about events of these types. Raises `PolicyError`, as `Policy.parse` does."""
        return Policy.parse(
            text,
            event_types=event_types,
            contracts=self.contracts,
            fact_types=self.facts,
            first_types=sorted(self.starts),
        )


def fact_types(proto: pb.FlowTemplate) -> frozenset[str]:
    """The types that can become facts of a flow: what begins it, and what its steps emit."""
    return frozenset(proto.starts_with).union(*(emits_of(step) for step in proto.steps))


def emits_of(step: pb.Step) -> frozenset[str]:
    """The types that a step may answer with: what the template names, or StepCompleted where it names nothing."""
    return frozenset(step.emits or [STEP_COMPLETED])


def step_spec(step: pb.Step, facts: frozenset[str], contracts: Contracts) -> StepSpec:
    """A step; `facts` are the types that the count of a join may look up."""
    joins = tuple(
        JoinSpec(type=join.type, count=Count.parse(join.count, latest_types=facts, contracts=contracts))
        for join in step.after_all
    )
    return StepSpec(
        name=step.name,
        agent=step.agent,
        after=frozenset(step.after),
        joins=joins,
        emits=emits_of(step),
        # A template without an effect or a rule's action breaks its contract; where one gets here, the careful reading.
        effect=_defined(pb.Effect.DESCRIPTOR, step.effect, pb.EFFECT_IRREVERSIBLE),
        timeout=bounded(step.timeout),
        retry=_retry(step.retry),
        on_failure=_defined(pb.FailureAction.DESCRIPTOR, step.on_failure, pb.FAILURE_ACTION_ESCALATE),
        undo=_undo(step.undo) if step.HasField("undo") else None,
        max_outputs=step.max_outputs or None,
        start_within=bounded(step.start_within) if step.HasField("start_within") else None,
    )


def gate_spec(gate: pb.Gate, terms: Terms) -> GateSpec:
    """A gate."""
    when = terms.parse(gate.when, [gate.on]) if gate.when.strip() else None
    waits = gate.on_expiry == pb.EXPIRY_ACTION_WAIT
    return GateSpec(
        name=gate.name,
        on=gate.on,
        when=when,
        roles=frozenset(gate.approvers.roles),
        quorum=gate.approvers.quorum or 1,
        not_the_requester=gate.approvers.not_the_requester,
        requester_field=gate.approvers.requester_field,
        expires_after=None if waits or not gate.HasField("expires_after") else bounded(gate.expires_after),
        on_expiry=_defined(pb.ExpiryAction.DESCRIPTOR, gate.on_expiry, pb.EXPIRY_ACTION_REJECT),
        on_reject=_defined(pb.RejectAction.DESCRIPTOR, gate.on_reject, pb.REJECT_ACTION_CONTINUE),
    )


def rule_spec(rule: pb.Rule, terms: Terms) -> RuleSpec:
    """A rule."""
    when = terms.parse(rule.when, rule.on)
    digest = hashlib.sha256(rule.SerializeToString(deterministic=True)).hexdigest()
    then = _defined(RuleAction.DESCRIPTOR, rule.then, RuleAction.RULE_ACTION_ESCALATE)
    return RuleSpec(name=rule.name, on=frozenset(rule.on), when=when, then=then, digest=digest)


def _defined(enum: EnumDescriptor, value: _Value, default: _Value) -> _Value:
    """The value, or `default` where none is given; ValueError for one that this contract does not have."""
    if value not in enum.values_by_number:
        raise ValueError(f"{enum.full_name} has no value {value}")
    return value or default


def _undo(undo: pb.Undo) -> UndoSpec:
    emits = frozenset(undo.emits) | {STEP_COMPLETED}
    return UndoSpec(timeout=bounded(undo.timeout), retry=_retry(undo.retry), emits=emits)


def _retry(retry: pb.Retry) -> RetrySpec:
    default = RetrySpec()
    return RetrySpec(
        max_attempts=retry.max_attempts or default.max_attempts,
        initial_backoff=bounded(retry.initial_backoff)
        if retry.HasField("initial_backoff")
        else default.initial_backoff,
        multiplier=_growth(retry.multiplier) or default.multiplier,
        max_backoff=bounded(retry.max_backoff) if retry.HasField("max_backoff") else default.max_backoff,
    )


def bounded(duration: Duration) -> timedelta:
    """A duration as it is reckoned with: from none to LONGEST, whatever a template of an earlier day says."""
    nanoseconds = duration.seconds * 10**9 + duration.nanos
    return timedelta(microseconds=min(max(nanoseconds // 1000, 0), LONGEST // timedelta(microseconds=1)))


def _growth(multiplier: float) -> float:
    return min(max(multiplier, 0.0), _FASTEST) if math.isfinite(multiplier) else _FASTEST
