"""What holds for every flow, whatever agents, people and coordinators do."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise

from google.protobuf.any_pb2 import Any
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from handrail.coordinator.decide import decide
from handrail.coordinator.decide.timers import timers
from handrail.mesh.flow import Flow
from handrail.mesh.fold import advance, begin, evolve, fold, is_final, status
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import TYPE_URL, Recorded
from handrail.mesh.wire.subjects import Address, Kind
from handrail.v1 import decision_pb2
from handrail.v1.decision_pb2 import FlowClosed, FlowStatus
from handrail.v1.event_pb2 import Event
from handrail.v1.failure_pb2 import Divergence, StepCompleted, StepFailed, StepNotStarted, StepProgress
from tests.support.random_templates import TYPES, Spec, compiled, contracts, full_name, revisions, specs
from tests.support.simulation import BEGINNING
from tests.support.wandering import Wanderer

_BOOKKEEPING = {"void", "divergences", "last_sequence", "last_time", "message_count", "flow_id"}
_CLOSED = FlowClosed.DESCRIPTOR.full_name


def wander(template: Template, data: st.DataObject, *others: Template, length: int = 20) -> Wanderer:
    """A flow that went some way. On each step the coordinator's decisions counted, none was hot, and none was owed."""
    wanderer = Wanderer(template, *others)
    wanderer.begin(data.draw(st.integers(0, 3), label="n"))
    for _ in range(data.draw(st.integers(1, length), label="length")):
        wanderer.next_act(data).do()
        assert not (wanderer.simulation.coordinator and wanderer.simulation.is_silent()), "P7: it would fall silent"
    return wanderer


@settings(max_examples=150)
@given(specs(), st.data())
def test_p4_p7_every_flow_stays_whole_on_its_way_and_can_be_brought_to_an_end(spec: Spec, data: st.DataObject) -> None:
    wanderer = wander(compiled(spec), data, compiled(data.draw(revisions(spec))))
    check_history(wanderer)
    finish(wanderer)
    assert is_final(wanderer.flow), "P7: it comes to no end"


@settings(max_examples=100)
@given(specs(), st.data())
def test_p4_a_flow_is_the_same_in_whatever_parts_its_messages_are_folded(spec: Spec, data: st.DataObject) -> None:
    template = compiled(spec)
    simulation = wander(template, data, compiled(data.draw(revisions(spec)))).simulation
    history, versions = simulation.history, simulation.versions
    cuts = data.draw(st.sets(st.integers(0, len(history))), label="cuts")
    flow = begin(template)
    for start, end in pairwise(sorted({0, *cuts, len(history)})):
        before, kept = flow, flow.copy()
        flow = advance(flow, history[start:end], versions)
        assert before == kept, "a part changed the flow that it began with"
    assert flow == fold(template, history, versions)


def check_history(wanderer: Wanderer) -> None:
    """What holds for every message of a flow's history."""
    simulation, states = wanderer.simulation, wanderer.states
    template, history, versions = states[0].template, simulation.history, simulation.versions
    again = begin(template)
    for recorded, (before, after) in zip(history, pairwise(states), strict=True):
        assert again == before, "P4: nobody changed a flow that was there before"
        again = evolve(again, recorded, versions)
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
    assert again == fold(template, history, versions)


def check_closed(flow: Flow) -> None:
    """What holds when the end of a flow counts."""
    if flow.closed == FlowStatus.FLOW_STATUS_COMPENSATED:
        assert not any(effect.stands for effect in flow.effects.values())
        assert not flow.open_outcomes()
    assert not flow.escalations or flow.closed != FlowStatus.FLOW_STATUS_COMPENSATED


def essence(flow: Flow) -> dict[str, object]:
    """A flow without what merely says that there was one more message, and that it does not count."""
    found = {field.name: getattr(flow, field.name) for field in fields(flow) if field.name not in _BOOKKEEPING}
    found["runs"] = {key: replace(run, refused="") for key, run in flow.runs.items()}
    return found


def finish(wanderer: Wanderer) -> None:
    """Bring a flow to its end with a coordinator running and everybody doing what they owe."""
    wanderer.simulation.coordinator = True
    wanderer.simulation.settle()
    for _ in range(300):
        if is_final(wanderer.flow):
            break
        act = next(iter(wanderer.orderly()), None)
        assert act is not None, "P7: it is not over, and nobody owes anything"
        before = len(wanderer.simulation.history), wanderer.simulation.now
        act.do()
        if before == (len(wanderer.simulation.history), wanderer.simulation.now):
            for other in wanderer.orderly():
                other.do()
                if before != (len(wanderer.simulation.history), wanderer.simulation.now):
                    break


_TYPES = [
    *(message.DESCRIPTOR for message in (StepFailed, StepNotStarted, StepProgress, StepCompleted, Divergence)),
    *decision_pb2.DESCRIPTOR.message_types_by_name.values(),
    *(contracts().message_class(full_name(name)).DESCRIPTOR for name in TYPES[:4]),
]


@st.composite
def anything(draw: st.DrawFn, flow: Flow) -> Recorded:
    """A message that names what is there, or not, and says whatever it likes."""
    descriptor = draw(st.sampled_from(_TYPES))
    known = [flow.flow_id, *flow.facts, *flow.effects, *flow.proposals, *flow.escalations, "0" * 32]
    roots = known + [run.root for run in flow.runs.values()]
    message = contracts().message_class(descriptor.full_name)()
    _fill(draw, message, [*known, *flow.template.steps, "kim", "lead", ""])
    value = draw(st.sampled_from([message.SerializeToString(), b"\xff", b""]))
    agent = draw(st.sampled_from(["a0", "a1", "coordinator"]))
    event = Event(
        event_id=draw(st.sampled_from(known)),
        source=agent,
        flow_type=flow.flow_type,
        flow_id=flow.flow_id,
        template_version=draw(st.sampled_from([1, 1, 1, 2])),
        step=draw(st.sampled_from(["", *flow.template.steps, "nobody"])),
        root=draw(st.sampled_from(roots)),
        run=draw(st.integers(0, 2)),
        attempt=draw(st.integers(0, 3)),
        output_index=draw(st.integers(0, 3)),
        output_total=draw(st.integers(0, 3)),
        data=Any(type_url=TYPE_URL + descriptor.full_name, value=value),
    )
    kind = draw(st.sampled_from(Kind))
    address = Address(flow.flow_type, flow.flow_id, kind, agent, event.event_id, descriptor.full_name)
    return Recorded(address, event, flow.last_sequence + 1, flow.last_time or BEGINNING)


def _fill(draw: st.DrawFn, message: Message, texts: list[str]) -> None:
    """Give each plain field of a message some value."""
    for field in message.DESCRIPTOR.fields:
        if field.is_repeated or field.message_type is not None or field.type == FieldDescriptor.TYPE_BYTES:
            continue
        values: st.SearchStrategy[object] = st.integers(0, 12)
        if field.type == FieldDescriptor.TYPE_STRING:
            values = st.sampled_from(texts)
        elif field.type == FieldDescriptor.TYPE_BOOL:
            values = st.booleans()
        setattr(message, field.name, draw(values))


@settings(max_examples=100)
@given(specs(), st.data())
def test_p5_no_message_breaks_the_fold_or_leaves_the_coordinator_without_an_answer(
    spec: Spec, data: st.DataObject
) -> None:
    wanderer = wander(compiled(spec), data, length=8)
    flow = wanderer.flow
    for _ in range(6):
        recorded = data.draw(anything(flow))
        before, flow = flow, evolve(flow, recorded)
        if recorded.sequence in flow.void:
            assert essence(before) == essence(flow)
        decide(flow, recorded.time)
        assert all(due.tzinfo is not None for due in timers(flow).values())
        assert status(flow) != FlowStatus.FLOW_STATUS_UNSPECIFIED
