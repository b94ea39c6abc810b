"""Analyses recorded flows: which steps ran, after which triggers, and with what results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property

from handrail.analysis.infer.joins import Explainer
from handrail.mesh.template.specs import APPROVAL_REFUSED
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import Kind
from handrail.v1.decision_pb2 import FlowStatus, StepTimedOut
from handrail.v1.failure_pb2 import StepFailed, StepNotStarted

_TIMED_OUT = StepTimedOut.DESCRIPTOR.full_name
_NOT_STARTED = StepNotStarted.DESCRIPTOR.full_name


@dataclass(frozen=True)
class Traffic:
    """One recorded flow: its valid messages in stream order, its void ones, and its status."""

    recorded: Sequence[Recorded]
    status: FlowStatus.ValueType
    left_out: Sequence[Recorded] = ()

    @cached_property
    def facts(self) -> dict[str, Recorded]:
        """The events and released proposals, by id."""
        return {each.event_id: each for each in self.recorded if each.kind in (Kind.EVENT, Kind.RELEASED)}

    @cached_property
    def refusals(self) -> dict[str, Recorded]:
        """The refused proposals: a step may wait for them."""
        return {each.event_id: each for each in self.decisions(APPROVAL_REFUSED)}

    @property
    def outcomes(self) -> Iterator[Recorded]:
        """The answers of steps, each once, as published."""
        return (each for each in self.recorded if each.kind in (Kind.EVENT, Kind.PROPOSAL) and each.event.step)

    def decisions(self, message_type: str) -> Iterator[Recorded]:
        """The decisions of a type."""
        return (each for each in self.recorded if each.kind is Kind.DECISION and each.type == message_type)


@dataclass
class SeenRun:
    """One run of a step, as far as it is recorded.

    `trigger` is the message that triggered it: for a join its last input, and `inputs` are all of them. It is None if
    no recorded message explains the root.
    """

    flow: Traffic
    step: str
    root: str
    agent: str = ""
    trigger: Recorded | None = None
    inputs: tuple[Recorded, ...] = ()
    outcomes: list[Recorded] = field(default_factory=list)
    failures: list[Recorded] = field(default_factory=list)
    starts: dict[int, Recorded] = field(default_factory=dict)
    """The retry commands, by attempt."""

    @property
    def attempts(self) -> int:
        """The number of the last recorded attempt."""
        return max([1, *self.starts, *(each.event.attempt for each in (*self.outcomes, *self.failures))])

    @property
    def latencies(self) -> Iterator[timedelta]:
        """The times from the begin of an attempt to each of its outcomes."""
        for outcome in self.outcomes:
            began = self.starts.get(outcome.event.attempt, self.trigger)
            if began is not None and outcome.time >= began.time:
                yield outcome.time - began.time


def seen_runs(flows: Iterable[Traffic]) -> dict[str, list[SeenRun]]:
    """The runs of each step in all flows; steps in order of first occurrence."""
    runs: dict[str, list[SeenRun]] = {}
    explainer = Explainer()
    for flow in flows:
        for run in _runs_of(flow):
            _explain(run, explainer)
            runs.setdefault(run.step, []).append(run)
    return runs


def _runs_of(flow: Traffic) -> Iterable[SeenRun]:
    runs: dict[tuple[str, str], SeenRun] = {}

    def run_of(step: str, root: str) -> SeenRun:
        return runs.setdefault((step, root), SeenRun(flow, step, root))

    for each in flow.outcomes:
        run = run_of(each.event.step, each.event.root)
        run.agent = each.agent
        run.outcomes.append(each)
    for each in flow.recorded:
        event = each.event
        if each.kind is Kind.RETRY:
            run = run_of(event.step, event.root)
            run.agent = each.agent
            run.starts[event.attempt] = each
        elif each.kind is Kind.FAILURE and each.type != _NOT_STARTED and not _is_of_undo(each):
            run = run_of(event.step, event.root)
            run.agent = each.agent
            run.failures.append(each)
        elif each.type == _TIMED_OUT and not StepTimedOut.FromString(event.data.value).undo_of:
            run_of(event.step, event.root).failures.append(each)
    return runs.values()


def _is_of_undo(failure: Recorded) -> bool:
    return bool(StepFailed.FromString(failure.event.data.value).undo_of)


def _explain(run: SeenRun, explainer: Explainer) -> None:
    """Finds the trigger of a run: the message that its root names, or the inputs with this root as their hash."""
    flow = run.flow
    run.trigger = flow.facts.get(run.root) or flow.refusals.get(run.root)
    spoken = [*run.outcomes, *run.failures]
    if run.trigger is not None or not spoken:
        return
    first = spoken[0]
    before = [fact for fact in flow.facts.values() if fact.sequence < first.sequence]
    last = flow.facts.get(first.event.causation_id)
    run.inputs = explainer.inputs(run.step, run.root, before, last)
    run.trigger = run.inputs[-1] if run.inputs else None
