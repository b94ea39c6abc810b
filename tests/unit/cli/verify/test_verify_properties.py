"""The history checker and the fold, two readings of the same stream, agree on every flow that the checker judges."""

from __future__ import annotations

from google.protobuf.json_format import ParseDict
from hypothesis import given, settings
from hypothesis import strategies as st

from handrail.cli.verify.account import Account, account
from handrail.cli.verify.plan import Plan
from handrail.cli.verify.record import Stored, read
from handrail.cli.verify.standing import OPEN, standing
from handrail.mesh.fold import is_final, status
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.template_pb2 import FlowTemplate
from tests.support.random_templates import Spec, compiled, specs
from tests.support.wandering import Wanderer
from tests.unit.mesh.fold.test_flow_properties import finish, wander


def second_reading(spec: Spec, wanderer: Wanderer) -> Account:
    stored = [
        Stored(each.sequence, each.address.subject, each.event.SerializeToString(), each.time)
        for each in wanderer.simulation.history
    ]
    messages = [message for each in stored if (message := read(each)) is not None]
    assert len(messages) == len(stored), "every message can be read a second time"
    made = account(messages, {(spec["name"], 1): Plan(ParseDict(spec, FlowTemplate()))})
    assert made is not None
    return made


@settings(max_examples=150, derandomize=True)
@given(specs(), st.data())
def test_p4_a_second_reading_of_the_stream_comes_to_the_same_end(spec: Spec, data: st.DataObject) -> None:
    wanderer = wander(compiled(spec), data)
    if data.draw(st.booleans(), label="finish"):
        finish(wanderer)
    made = second_reading(spec, wanderer)
    expected = status(wanderer.flow) if is_final(wanderer.flow) else OPEN
    told = standing(made).status
    # Conditions are not evaluated: a rule that tripped shows once it is recorded.
    if wanderer.flow.trips and expected == OPEN and told == FlowStatus.FLOW_STATUS_COMPLETED:
        return
    assert made.unsure or FlowStatus.Name(told) == FlowStatus.Name(expected)
