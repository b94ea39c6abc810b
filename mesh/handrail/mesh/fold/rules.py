"""Rules on the whole flow: evaluated once per event they name, in stream order, so that every reader agrees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from google.protobuf.message import Message

from handrail.mesh.envelope import Recorded
from handrail.mesh.errors import PolicyError
from handrail.mesh.flow import Flow, Trip, Void
from handrail.mesh.policy import FlowFacts
from handrail.mesh.template import RuleSpec
from handrail.v1.decision_pb2 import RuleInputs, RuleTripped


def evaluate(flow: Flow, recorded: Recorded) -> None:
    """Mark the rules that trip at this event. A rule that can't be evaluated trips too: fail closed."""
    if not flow.goes_on:
        return
    for rule in flow.template.rules_on(recorded.type):
        known = flow.trips.get(rule.name)
        if known is not None and known.digest == rule.digest:
            continue
        try:
            message = flow.template.contracts.decode(recorded.event.data)
            tripped = rule.when.allows(event=message, flow=_facts(flow, recorded))
            detail = rule.when.text
        except PolicyError as error:
            tripped, detail = True, f"it can't be evaluated: {error.text}"
        if tripped:
            flow.trips[rule.name] = Trip(
                rule=rule.name,
                event_id=recorded.event_id,
                sequence=recorded.sequence,
                detail=detail,
                then=rule.then,
                digest=rule.digest,
                inputs=_inputs(flow, rule, recorded),
            )


def apply_tripped(flow: Flow, recorded: Recorded) -> Void | None:
    """A tripped rule was recorded; once."""
    tripped = RuleTripped.FromString(recorded.event.data.value)
    trip = flow.trips.get(tripped.rule)
    if trip is None or trip.recorded or trip.sequence != tripped.sequence:
        return Void("the rule has not tripped, or is recorded")
    # Those recorded before there were digests have none.
    if tripped.rule_digest and (tripped.rule_digest, tripped.inputs) != (trip.digest, trip.inputs):
        return Void("the rule has not tripped in this wording, or on these inputs")
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


class Latest(Mapping[str, Message]):
    """The latest fact of each type, decoded when it is looked up."""

    def __init__(self, flow: Flow) -> None:
        self._decode = flow.template.contracts.decode
        self._facts = {name: facts[-1] for name, facts in flow.facts_by_type.items() if facts}

    def __getitem__(self, message_type: str) -> Message:
        return self._decode(self._facts[message_type].event.data)

    def __contains__(self, message_type: object) -> bool:
        return message_type in self._facts

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)


def _inputs(flow: Flow, rule: RuleSpec, recorded: Recorded) -> RuleInputs:
    """What the condition reads of the flow, and nothing else."""
    inputs = RuleInputs()
    inputs.elapsed.FromTimedelta(recorded.time - flow.start_time)
    for table, message_type in rule.when.reads(recorded.type):
        facts = flow.facts_by_type.get(message_type, ())
        if table == "flow.counts":
            inputs.counts[message_type] = len(facts)
        elif facts:
            inputs.latest[message_type] = facts[-1].event_id
    return inputs


def _facts(flow: Flow, recorded: Recorded) -> FlowFacts:
    return FlowFacts(
        counts={name: len(facts) for name, facts in flow.facts_by_type.items()},
        latest=Latest(flow),
        elapsed=recorded.time - flow.start_time,
    )
