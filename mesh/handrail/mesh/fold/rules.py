"""Rules on the whole flow: evaluated once per event they name, in stream order, so that all readers agree."""

from __future__ import annotations

from handrail.mesh.conditions import look_ups
from handrail.mesh.errors import PolicyError
from handrail.mesh.flow import Flow, RuleTrip, Void
from handrail.mesh.flow.facts import FlowFacts
from handrail.mesh.flow.values import replace
from handrail.mesh.template import RuleSpec
from handrail.mesh.wire.envelope import Recorded
from handrail.v1.decision_pb2 import RuleInputs, RuleTripped


def evaluate(flow: Flow, recorded: Recorded) -> None:
    """Marks the rules that trip at this event. A rule that can't be evaluated trips too: fail closed."""
    if not flow.goes_on:
        return
    for rule in flow.template.rules_on(recorded.type):
        known = flow.trips.get(rule.name)
        if known is not None and known.digest == rule.digest:
            continue
        try:
            message = flow.template.contracts.decode(recorded.event.data)
            tripped = rule.when.allows(event=message, flow=facts_at(flow, recorded))
            detail = rule.when.text
        except PolicyError as error:
            tripped, detail = True, f"it can't be evaluated: {error.text}"
        if tripped:
            flow.trips[rule.name] = RuleTrip(
                rule=rule.name,
                event_id=recorded.event_id,
                sequence=recorded.sequence,
                detail=detail,
                then=rule.then,
                digest=rule.digest,
                inputs=_inputs(flow, rule, recorded),
            )


def apply_tripped(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies the record of a tripped rule. Void the second time."""
    tripped = RuleTripped.FromString(recorded.event.data.value)
    trip = flow.trips.get(tripped.rule)
    if trip is None or trip.recorded or trip.sequence != tripped.sequence:
        return Void("the rule has not tripped, or is already recorded")
    # Older records have no digest.
    if tripped.rule_digest and (tripped.rule_digest, tripped.inputs) != (trip.digest, trip.inputs):
        return Void("the rule has not tripped in this wording, or on these inputs")
    flow.trips[tripped.rule] = replace(trip, recorded=True)
    return None


def outstanding(flow: Flow) -> RuleTrip | None:
    """The first trip without a recorded consequence, or None."""
    return next((trip for trip in flow.trips.values() if not trip.settled), None)


def settle_all(flow: Flow) -> None:
    """Settles all trips, since the flow ends: their consequences are recorded, or obsolete."""
    for trip in flow.trips.values():
        flow.trips[trip.rule] = replace(trip, settled=True)


def reason(trip: RuleTrip) -> str:
    """A trip as text for people."""
    return f"rule {trip.rule} tripped: {trip.detail}"


def _inputs(flow: Flow, rule: RuleSpec, recorded: Recorded) -> RuleInputs:
    """Exactly the inputs that the condition reads from the flow."""
    inputs = RuleInputs()
    inputs.elapsed.FromTimedelta(recorded.time - flow.start_time)
    for table, message_type in rule.when.reads(recorded.type):
        facts = flow.facts_by_type.get(message_type, ())
        match table:
            case look_ups.COUNTS:
                inputs.counts[message_type] = len(facts)
            case look_ups.FACTS:
                inputs.facts[message_type] = len(facts)
            case look_ups.PROPOSALS:
                inputs.proposals[message_type] = len(facts_at(flow, recorded).proposals(message_type))
            case _ if facts:
                inputs.latest[message_type] = facts[-1].event_id
    if rule.when.reads_first and flow.first is not None:
        inputs.first = flow.first.event_id
    return inputs


def facts_at(flow: Flow, recorded: Recorded) -> FlowFacts:
    """The flow as a condition may read it at this event."""
    if flow.first is None:
        raise ValueError("the flow has no event yet")
    return FlowFacts(
        contracts=flow.template.contracts,
        first_event=flow.first,
        by_type=flow.facts_by_type,
        asked=flow.proposals,
        at=recorded,
    )
