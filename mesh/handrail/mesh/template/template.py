"""Compiled templates: typed and indexed for look-ups by the fold, the SDK and the coordinator."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from types import MappingProxyType
from typing import TypeVar

from handrail.mesh.contracts import Contracts
from handrail.mesh.template.compilation import bounded, gate_spec, rule_spec, step_spec
from handrail.mesh.template.persons import CONFIRM_WITHIN, acts_for_two
from handrail.mesh.template.specs import (
    APPROVAL_REFUSED,
    STEP_COMPLETED,
    GateSpec,
    JoinSpec,
    RetrySpec,
    RuleSpec,
    StepSpec,
    UndoSpec,
)
from handrail.mesh.template.terms import Terms, fact_types
from handrail.mesh.template.yaml_reader import load_yaml
from handrail.v1 import template_pb2 as pb
from handrail.v1.act_pb2 import Act

__all__ = [
    "APPROVAL_REFUSED",
    "STEP_COMPLETED",
    "GateSpec",
    "JoinSpec",
    "RetrySpec",
    "RuleSpec",
    "StepSpec",
    "Template",
    "UndoSpec",
    "fact_types",
    "load_yaml",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Template:
    """One compiled version of a flow type's template. Each query is one dict look-up."""

    proto: pb.FlowTemplate
    contracts: Contracts
    name: str
    version: int
    starts_with: frozenset[str]
    started_by: frozenset[str]
    completes_with: frozenset[str]
    search: frozenset[str]
    """Paths of fields of its facts by whose values flows are found."""
    deadline: timedelta
    parallel_undo: bool
    asks_on_divergence: bool
    require_two: frozenset[Act.ValueType]
    """The acts on a flow that need two persons."""
    confirm_within: timedelta
    """How long the second person has to confirm."""
    retention: timedelta | None
    """How long a finished flow stays in the stream; None: as long as the installation says."""
    keep_forever: bool
    """Finished flows stay in the stream, whatever `retention` says."""
    max_messages: int
    """With how many messages a flow is held; 0: as many as it is without a template's word."""
    steps: Mapping[str, StepSpec]
    gates: Mapping[str, GateSpec]
    rules: Mapping[str, RuleSpec]

    @classmethod
    def compile(cls, proto: pb.FlowTemplate, contracts: Contracts) -> Template:
        """Compiles a template against the contracts of the messages it names.

        Does not run the type-check: stored templates have passed it, and a stricter check in a later release must not
        reject running ones. Raises `PolicyError` for an expression that does not compile, and `HandrailError` with
        UNKNOWN_MESSAGE_TYPE for a type that the contracts don't have.
        """
        terms = Terms.of(proto, contracts)
        steps = [step_spec(step, terms.facts, contracts) for step in proto.steps]
        template = cls(
            proto=proto,
            contracts=contracts,
            name=proto.name,
            version=proto.version,
            starts_with=frozenset(proto.starts_with),
            started_by=frozenset(proto.started_by),
            completes_with=frozenset(proto.completes_with),
            search=frozenset(proto.search),
            deadline=bounded(proto.deadline),
            parallel_undo=proto.compensation_order == pb.COMPENSATION_ORDER_PARALLEL,
            asks_on_divergence=proto.on_divergence == pb.DIVERGENCE_ACTION_ESCALATE,
            require_two=acts_for_two(proto),
            confirm_within=bounded(proto.confirm_within) if proto.HasField("confirm_within") else CONFIRM_WITHIN,
            retention=bounded(proto.retention) if proto.HasField("retention") else None,
            keep_forever=proto.keep_forever,
            max_messages=proto.max_messages,
            steps=MappingProxyType({step.name: step for step in steps}),
            gates=MappingProxyType({gate.name: gate_spec(gate, terms) for gate in proto.gates}),
            rules=MappingProxyType({rule.name: rule_spec(rule, terms) for rule in proto.rules}),
        )
        for full_name in template.message_types:
            contracts.message_class(full_name)
        return template

    def triggered_by(self, message_type: str) -> tuple[StepSpec, ...]:
        """The steps that a single message of this type triggers."""
        return self._triggered.get(message_type, ())

    def joins_on(self, message_type: str) -> tuple[StepSpec, ...]:
        """The steps that wait for messages of this type together with others."""
        return self._joins.get(message_type, ())

    def gates_on(self, message_type: str) -> tuple[GateSpec, ...]:
        """The gates that a message of this type must pass. Without any, it is a plain fact."""
        return self._gates.get(message_type, ())

    def rules_on(self, message_type: str) -> tuple[RuleSpec, ...]:
        """The rules that are evaluated at a fact of this type."""
        return self._rules.get(message_type, ())

    def emitters_of(self, message_type: str) -> tuple[StepSpec, ...]:
        """The steps that may answer with this type."""
        return self._emitters.get(message_type, ())

    @cached_property
    def message_types(self) -> frozenset[str]:
        """The full names of all messages that the template names."""
        undone = (step.undo.emits for step in self.steps.values() if step.undo)
        named = (self.completes_with, self._triggered, self._joins, self._gates, self._rules)
        return fact_types(self.proto).union(*named, *undone)

    @cached_property
    def descriptor_set(self) -> bytes:
        """The files that define the template's messages, with imports. They are stored with the template."""
        return self.contracts.subset(self.message_types)

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, over the template and the definitions of its messages; equal for equal content."""
        digest = hashlib.sha256(self.proto.SerializeToString(deterministic=True))
        digest.update(bytes.fromhex(self.contracts.fingerprint(self.message_types)))
        return digest.hexdigest()

    @cached_property
    def _triggered(self) -> dict[str, tuple[StepSpec, ...]]:
        return _index((message_type, step) for step in self.steps.values() for message_type in step.after)

    @cached_property
    def _joins(self) -> dict[str, tuple[StepSpec, ...]]:
        return _index((join.type, step) for step in self.steps.values() for join in step.joins)

    @cached_property
    def _emitters(self) -> dict[str, tuple[StepSpec, ...]]:
        return _index((message_type, step) for step in self.steps.values() for message_type in step.emits)

    @cached_property
    def _gates(self) -> dict[str, tuple[GateSpec, ...]]:
        return _index((gate.on, gate) for gate in self.gates.values())

    @cached_property
    def _rules(self) -> dict[str, tuple[RuleSpec, ...]]:
        return _index((message_type, rule) for rule in self.rules.values() for message_type in rule.on)


_Spec = TypeVar("_Spec", StepSpec, GateSpec, RuleSpec)


def _index(pairs: Iterable[tuple[str, _Spec]]) -> dict[str, tuple[_Spec, ...]]:
    index: defaultdict[str, list[_Spec]] = defaultdict(list)
    for message_type, spec in pairs:
        index[message_type].append(spec)
    return {message_type: tuple(specs) for message_type, specs in index.items()}
