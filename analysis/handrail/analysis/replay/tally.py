"""The counts of a replay. Tallies of disjoint flows can be added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from handrail.analysis.replay.trial import Trial
from handrail.mesh.template import Template
from handrail.v1 import template_service_pb2 as pb
from handrail.v1.decision_pb2 import RuleAction

_MOST_ERRORS = 100
_LONGEST_ERROR = 300

_ENDED = {
    RuleAction.RULE_ACTION_ESCALATE: "escalated",
    RuleAction.RULE_ACTION_COMPENSATE: "compensated",
    RuleAction.RULE_ACTION_FAIL: "failed",
    RuleAction.RULE_ACTION_COMPLETE: "completed",
}


class Error(NamedTuple):
    """Why a condition could not be evaluated. `side` is `then` or `now`; either `gate` or `rule` is empty."""

    side: str
    gate: str
    rule: str
    text: str


class Tally:
    """The counts. Plain counters, so that a tally can be passed to another process."""

    def __init__(self) -> None:
        self.flows = 0
        self.messages = 0
        self.flows_differing = 0
        self.differences = 0
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """By side (`then`, `now`) and the result for the flow."""
        self.gates: Counter[tuple[str, str]] = Counter()
        """By side and gate."""
        self.rules: Counter[tuple[str, str, RuleAction.ValueType]] = Counter()
        """By side, rule and consequence."""
        self.gate_errors: Counter[tuple[str, str]] = Counter()
        self.rule_errors: Counter[tuple[str, str, RuleAction.ValueType]] = Counter()
        self.errors: Counter[Error] = Counter()

    def count(self, then: Trial, now: Trial, *, messages: int, differences: int) -> None:
        """Counts one flow."""
        self.flows += 1
        self.messages += messages
        self.differences += differences
        self.flows_differing += bool(differences)
        self._count("then", then)
        self._count("now", now)

    def add(self, other: Tally) -> None:
        """Adds the counts of other flows."""
        self.flows += other.flows
        self.messages += other.messages
        self.flows_differing += other.flows_differing
        self.differences += other.differences
        self.outcomes.update(other.outcomes)
        self.gates.update(other.gates)
        self.rules.update(other.rules)
        self.gate_errors.update(other.gate_errors)
        self.rule_errors.update(other.rule_errors)
        for error, number in other.errors.items():
            self._count_error(error, number)

    def summary(self, changed: Template) -> pb.ReplaySummary:
        """The counts in the form of the API. Gates and rules of the changed template appear even if all are 0."""
        return pb.ReplaySummary(
            flows=self.flows,
            messages=self.messages,
            flows_differing=self.flows_differing,
            differences=self.differences,
            then=self._flows("then"),
            now=self._flows("now"),
            gates=self._gates(changed.gates),
            rules=self._rules((rule.name, rule.then) for rule in changed.rules.values()),
            unevaluated=self._errors(),
        )

    def _count(self, side: str, trial: Trial) -> None:
        if trial.asked:
            self.outcomes[side, "needed_approval"] += 1
            for asked in trial.asked.values():
                gate = asked.gate.name
                self.gates[side, gate] += 1
                if asked.error:
                    self.gate_errors[side, gate] += 1
                    self._count_error(Error(side, gate, "", asked.error[:_LONGEST_ERROR]), 1)
        if trial.tripped:
            ways = {(tripped.rule.name, tripped.rule.then): tripped.error for tripped in trial.tripped.values()}
            for happened in {_ENDED[then] for _, then in ways}:
                self.outcomes[side, happened] += 1
            for (rule, then), error in ways.items():
                self.rules[side, rule, then] += 1
                if error:
                    self.rule_errors[side, rule, then] += 1
                    self._count_error(Error(side, "", rule, error[:_LONGEST_ERROR]), 1)

    def _count_error(self, error: Error, number: int) -> None:
        if error in self.errors or len(self.errors) < _MOST_ERRORS:
            self.errors[error] += number

    def _flows(self, side: str) -> pb.ReplayedFlows:
        return pb.ReplayedFlows(**{what: number for (where, what), number in self.outcomes.items() if where == side})

    def _gates(self, named: Iterable[str]) -> Iterator[pb.ReplayedGate]:
        for gate in sorted({*named, *(gate for _, gate in self.gates)}):
            yield pb.ReplayedGate(
                gate=gate,
                asked_then=self.gates["then", gate],
                asked_now=self.gates["now", gate],
                unevaluated_then=self.gate_errors["then", gate],
                unevaluated_now=self.gate_errors["now", gate],
            )

    def _rules(self, named: Iterable[tuple[str, RuleAction.ValueType]]) -> Iterator[pb.ReplayedRule]:
        ways = {*named, *((rule, then) for _, rule, then in self.rules)}
        for rule, then in sorted(ways, key=lambda way: (way[0], RuleAction.Name(way[1]))):
            yield pb.ReplayedRule(
                rule=rule,
                action=then,
                tripped_then=self.rules["then", rule, then],
                tripped_now=self.rules["now", rule, then],
                unevaluated_then=self.rule_errors["then", rule, then],
                unevaluated_now=self.rule_errors["now", rule, then],
            )

    def _errors(self) -> Iterator[pb.ReplayedError]:
        both: Counter[tuple[str, str, str]] = Counter()
        for error, number in self.errors.items():
            both[error.gate, error.rule, error.text] += number
        for (gate, rule, text), _ in both.most_common(_MOST_ERRORS):
            yield pb.ReplayedError(
                gate=gate,
                rule=rule,
                error=text,
                then=self.errors[Error("then", gate, rule, text)],
                now=self.errors[Error("now", gate, rule, text)],
            )
