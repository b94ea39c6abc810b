"""Rules on the whole flow: evaluated once per event they name, in stream order, so that every reader agrees."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message

from handrail.mesh.envelope import Recorded
from handrail.mesh.errors import PolicyError
from handrail.mesh.flow import Flow, Trip
from handrail.mesh.policy import FlowFacts


def evaluate(flow: Flow, recorded: Recorded) -> None:
    """Mark the rules that trip at this event. A rule that can't be evaluated trips too: fail closed."""
    if flow.is_halted:
        return
    for rule in flow.template.rules_on(recorded.type):
        if rule.name in flow.trips:
            continue
        try:
            message = flow.template.contracts.decode(recorded.event.data)
            tripped = rule.when.allows(event=message, flow=_facts(flow, recorded))
            detail = rule.when.text
        except PolicyError as error:
            tripped, detail = True, f"it can't be evaluated: {error.text}"
        if tripped:
            flow.trips[rule.name] = Trip(rule.name, recorded.event_id, recorded.sequence, detail)


def latest(flow: Flow) -> Mapping[str, Message]:
    """The latest fact of each type, decoded."""
    decode = flow.template.contracts.decode
    return {name: decode(facts[-1].event.data) for name, facts in flow.facts_by_type.items() if facts}


def _facts(flow: Flow, recorded: Recorded) -> FlowFacts:
    return FlowFacts(
        counts={name: len(facts) for name, facts in flow.facts_by_type.items()},
        latest=latest(flow),
        elapsed=recorded.time - flow.start_time,
    )
