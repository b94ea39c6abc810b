"""Compiles the parts of a template: fills in defaults, parses conditions, clamps durations."""

from __future__ import annotations

import hashlib
import math
from datetime import timedelta
from typing import TypeVar

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration

from handrail.mesh.conditions.policy import Count
from handrail.mesh.contracts import Contracts
from handrail.mesh.template.specs import STEP_COMPLETED, GateSpec, JoinSpec, RetrySpec, RuleSpec, StepSpec, UndoSpec
from handrail.mesh.template.terms import Terms, emits_of
from handrail.v1 import template_pb2 as pb
from handrail.v1.decision_pb2 import RuleAction

LONGEST = timedelta(days=36_525)
"""A hundred years. The type-check limits durations to 366 days, but a template stored by an earlier release may exceed
that. Its flows must still be readable, and a `datetime` ends with the year 9999.
"""

_FASTEST = 100.0

_Value = TypeVar("_Value", bound=int)


def step_spec(step: pb.Step, facts: frozenset[str], contracts: Contracts) -> StepSpec:
    """Compiles a step. `facts` are the types that the count of a join may look up."""
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
        # A template without an effect or a rule's action breaks its contract. If one is stored, use the safest value.
        effect=_defined(pb.Effect.DESCRIPTOR, step.effect, pb.EFFECT_IRREVERSIBLE),
        timeout=bounded(step.timeout),
        retry=_retry(step.retry),
        on_failure=_defined(pb.FailureAction.DESCRIPTOR, step.on_failure, pb.FAILURE_ACTION_ESCALATE),
        undo=_undo(step.undo) if step.HasField("undo") else None,
        max_outputs=step.max_outputs or None,
        start_within=bounded(step.start_within) if step.HasField("start_within") else None,
        external=step.external,
    )


def gate_spec(gate: pb.Gate, terms: Terms) -> GateSpec:
    """Compiles a gate."""
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
    """Compiles a rule."""
    when = terms.parse(rule.when, rule.on)
    digest = hashlib.sha256(rule.SerializeToString(deterministic=True)).hexdigest()
    then = _defined(RuleAction.DESCRIPTOR, rule.then, RuleAction.RULE_ACTION_ESCALATE)
    return RuleSpec(name=rule.name, on=frozenset(rule.on), when=when, then=then, digest=digest)


def _defined(enum: EnumDescriptor, value: _Value, default: _Value) -> _Value:
    """Returns the value, or `default` if it is 0. Raises ValueError for a value that the enum does not define."""
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
    """Clamps a duration to between 0 and LONGEST; templates stored by an earlier release may exceed it."""
    nanoseconds = duration.seconds * 10**9 + duration.nanos
    return timedelta(microseconds=min(max(nanoseconds // 1000, 0), LONGEST // timedelta(microseconds=1)))


def _growth(multiplier: float) -> float:
    return min(max(multiplier, 0.0), _FASTEST) if math.isfinite(multiplier) else _FASTEST
