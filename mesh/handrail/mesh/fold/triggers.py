"""The consequences of a fact: runs of the steps that wait for it, joins, and rules."""

from __future__ import annotations

from handrail.mesh.errors import PolicyError
from handrail.mesh.flow import Flow, StepRun
from handrail.mesh.flow.facts import Latest
from handrail.mesh.fold import rules
from handrail.mesh.template import StepSpec
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Recorded


def add_fact(flow: Flow, recorded: Recorded) -> None:
    """Adds a fact: it triggers steps, completes joins, and trips rules."""
    flow.facts[recorded.event_id] = recorded
    flow.facts_by_type[recorded.type] = (*flow.facts_by_type.get(recorded.type, ()), recorded)
    trigger(flow, recorded)
    for step in flow.template.joins_on(recorded.type):
        _join(flow, step, recorded)
    rules.evaluate(flow, recorded)


def trigger(flow: Flow, recorded: Recorded) -> None:
    """Begins a run of each step that waits for this fact or decision."""
    for step in flow.template.triggered_by(recorded.type):
        _begin_run(flow, step, recorded.event_id, recorded, (recorded.event_id,))


def _begin_run(flow: Flow, step: StepSpec, root: str, recorded: Recorded, inputs: tuple[str, ...]) -> None:
    if (step.name, root) in flow.runs:
        return
    flow.runs[step.name, root] = StepRun(
        step=step,
        root=root,
        trigger=recorded,
        inputs=inputs,
        since=recorded.time,
        deadline=recorded.time + step.timeout,
        budget=step.retry.max_attempts,
        asked=recorded.sequence,
    )


def _join(flow: Flow, step: StepSpec, last: Recorded) -> None:
    """Begins the run of a join, once, at the fact that completes its inputs."""
    if step.name in flow.joined:
        return
    inputs = inputs_of_join(flow, step)
    if not inputs:
        return
    event_ids = tuple(recorded.event_id for recorded in inputs)
    flow.joined |= {step.name}
    _begin_run(flow, step, ids.join_root(event_ids), last, event_ids)


def inputs_of_join(flow: Flow, step: StepSpec) -> list[Recorded]:
    """The inputs of a join in stream order, the first ones of each type; empty while any is missing."""
    inputs: list[Recorded] = []
    for wanted in step.joins:
        there = flow.facts_by_type.get(wanted.type, ())
        try:
            count = wanted.count.evaluate(Latest(flow.template.contracts, flow.facts_by_type))
        except PolicyError:
            # A fact that the count depends on has not come yet.
            return []
        if len(there) < count:
            return []
        inputs += there[:count]
    return sorted(inputs, key=lambda recorded: recorded.sequence)
