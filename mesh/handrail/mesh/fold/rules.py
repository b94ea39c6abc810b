"""Rules on the whole flow: evaluated once per event they name, in stream order, so that every reader agrees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from google.protobuf.message import Message

from handrail.mesh.envelope import Recorded
from handrail.mesh.errors import PolicyError
from handrail.mesh.flow import Flow, Trip, Void
from handrail.mesh.policy import FlowFacts
from handrail.v1.decision_pb2 import RuleTripped


def evaluate(flow: Flow, recorded: Recorded) -> None:
    """Mark the rules that trip at this event. A rule that can't be evaluated trips too: fail closed."""
    if not flow.goes_on:
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


def apply_tripped(flow: Flow, recorded: Recorded) -> Void | None:
    """A tripped rule was recorded; once."""
    tripped = RuleTripped.FromString(recorded.event.data.value)
    trip = flow.trips.get(tripped.rule)
    if trip is None or trip.recorded or trip.sequence != tripped.sequence:
        return Void("the rule has not tripped, or is recorded")
    flow.trips[tripped.rule] = replace(trip, recorded=True)
    return None


def outstanding(flow: Flow) -> Trip | None:
    """The first trip whose consequence is still to be recorded."""
    return next((trip for trip in flow.trips.values() if not trip.settled), None)


def settle_all(flow: Flow) -> None:
    """The flow ends: what its rules asked for has come, or is overtaken."""
    for trip in flow.trips.values():
        flow.trips[trip.rule] = replace(trip, settled=True)


def reason(trip: Trip) -> str:
    """What a person is told of a trip."""
    return f"rule {trip.rule} tripped: {trip.detail}"


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
