"""What holds for every flow, whatever agents, people and coordinators do."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from handrail.mesh.flow import Flow
from handrail.mesh.fold import begin, evolve, fold, is_final
from handrail.mesh.subjects import Kind
from handrail.mesh.template import Template
from handrail.v1.decision_pb2 import FlowClosed, FlowStatus
from tests.support.random_templates import Spec, compiled, specs
from tests.support.wandering import Wanderer

_BOOKKEEPING = {"void", "divergences", "last_sequence", "last_time", "message_count", "flow_id"}
_CLOSED = FlowClosed.DESCRIPTOR.full_name


def wander(template: Template, data: st.DataObject, *, length: int = 20) -> Wanderer:
    """A flow that went some way. On each step the coordinator's decisions counted, none was hot, and none was owed."""
    wanderer = Wanderer(template)
    wanderer.begin(data.draw(st.integers(0, 3), label="n"))
    for _ in range(data.draw(st.integers(1, length), label="length")):
        wanderer.next_act(data).do()
        assert not (wanderer.simulation.coordinator and wanderer.simulation.is_silent()), "P7: it would fall silent"
    return wanderer


@settings(max_examples=150)
@given(specs(), st.data())
def test_p4_p7_every_flow_stays_whole_on_its_way_and_can_be_brought_to_an_end(spec: Spec, data: st.DataObject) -> None:
    wanderer = wander(compiled(spec), data)
    check_history(wanderer)
    finish(wanderer)


def check_history(wanderer: Wanderer) -> None:
    """What holds for every message of a flow's history."""
    template, history, states = wanderer.flow.template, wanderer.simulation.history, wanderer.states
    again = begin(template)
    for recorded, (before, after) in zip(history, pairwise(states), strict=True):
        assert again == before, "P4: nobody changed a flow that was there before"
        again = evolve(again, recorded)
        assert again == after
        if recorded.sequence in after.void:
            assert essence(before) == essence(after), f"{recorded.type} is void, and changed something"
            continue
        if recorded.type == _CLOSED:
            check_closed(after)
        if recorded.kind is Kind.UNDO and recorded.event.attempt == 1 and not template.parallel_undo:
            newer = [
                e
                for e in before.undo_targets()
                if e.recorded.sequence > before.effects[recorded.event.root].recorded.sequence
            ]
            assert not newer, "the newest effect is undone first"
    assert again == fold(template, history)


def check_closed(flow: Flow) -> None:
    """What holds when the end of a flow counts."""
    if flow.closed == FlowStatus.FLOW_STATUS_COMPENSATED:
        assert not any(effect.stands for effect in flow.effects.values())
        assert not flow.open_outcomes()
    assert not flow.escalations or flow.closed != FlowStatus.FLOW_STATUS_COMPENSATED


def essence(flow: Flow) -> dict[str, object]:
    """A flow without what merely says that there was one more message."""
    return {field.name: getattr(flow, field.name) for field in fields(flow) if field.name not in _BOOKKEEPING}


def finish(wanderer: Wanderer) -> None:
    """Bring a flow to its end with a coordinator running and everybody doing what they owe."""
    wanderer.simulation.coordinator = True
    wanderer.simulation.settle()
    for _ in range(300):
        if is_final(wanderer.flow):
            return
        act = next(iter(wanderer.orderly()), None)
        assert act is not None, "P7: it is not over, and nobody owes anything"
        before = len(wanderer.simulation.history), wanderer.simulation.now
        act.do()
        if before == (len(wanderer.simulation.history), wanderer.simulation.now):
            for other in wanderer.orderly():
                other.do()
                if before != (len(wanderer.simulation.history), wanderer.simulation.now):
                    break
    raise AssertionError("P7: it comes to no end")
