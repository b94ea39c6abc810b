"""Rules trip at the same message with the same inputs, whichever reader looked when, and each is recorded once."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from handrail.mesh.fold import advance, begin
from handrail.v1.decision_pb2 import RuleTripped
from tests.support.random_templates import Spec, compiled, specs
from tests.unit.mesh.fold.test_flow_properties import wander

_TRIPPED = RuleTripped.DESCRIPTOR.full_name


@settings(max_examples=60)
@given(specs().filter(lambda spec: spec["rules"]), st.data())
def test_p4_a_rule_trips_once_at_the_same_message_however_readers_share_the_history(
    spec: Spec, data: st.DataObject
) -> None:
    wanderer = wander(compiled(spec), data)
    history, after = wanderer.simulation.history, wanderer.flow
    cuts = sorted(data.draw(st.sets(st.integers(0, len(history))), label="where one reader leaves off"))
    flow = begin(wanderer.states[0].template)
    for start, end in zip([0, *cuts], [*cuts, len(history)], strict=True):
        flow = advance(flow, history[start:end], wanderer.simulation.versions)
    assert flow.trips == after.trips
    recorded = [
        RuleTripped.FromString(each.event.data.value)
        for each in history
        if each.type == _TRIPPED and each.sequence not in after.void
    ]
    assert all(number == 1 for number in Counter(tripped.rule for tripped in recorded).values())
    for tripped in recorded:
        trip = after.trips[tripped.rule]
        assert (tripped.sequence, tripped.event_id) == (trip.sequence, trip.event_id)
        assert (tripped.rule_digest, tripped.inputs) == (trip.digest, trip.inputs)
