"""Properties of the flow type-check, tried on random templates."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from google.protobuf.duration_pb2 import Duration
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from handrail.analysis.check.typecheck import CODES, check
from handrail.mesh.contracts import Contracts
from handrail.mesh.template import APPROVAL_REFUSED, Template, load_yaml
from handrail.v1 import template_pb2 as pb
from tests.support.checked_orders import CONTRACTS, MESSAGES, SOUND, edited


@given(st.permutations(range(7)))
def test_the_order_of_the_steps_does_not_matter(order: list[int]) -> None:
    proto = edited(("[shop.v1.Shipped]", "[shop.v1.Shipped, shop.v1.Stray]"), ("event.price", "event.prize"))
    before = [finding.code for finding in check(proto, CONTRACTS)]
    steps = [pb.Step.FromString(proto.steps[index].SerializeToString()) for index in order]
    proto.ClearField("steps")
    proto.steps.extend(steps)
    assert [finding.code for finding in check(proto, CONTRACTS)] == before


NAMES = st.sampled_from([*(f"shop.v1.{name}" for name in MESSAGES), APPROVAL_REFUSED, "shop.v1.Unknown", ""])


PARTS = "latest['shop.v1.Planned'].parts"


EXPRESSIONS = st.sampled_from(
    ["", "true", "event.price > 1", "flow.counts['shop.v1.Picked'] > 1", "1 / 0 > 1", PARTS, "3", "("]
)


DURATIONS = st.builds(Duration, seconds=st.integers(0, 100))


STEPS = st.builds(
    pb.Step,
    name=st.sampled_from(["a", "b", "c", ""]),
    agent=st.sampled_from(["x", "y", "coordinator"]),
    after=st.lists(NAMES, max_size=3),
    after_all=st.lists(st.builds(pb.JoinInput, type=NAMES, count=EXPRESSIONS), max_size=3),
    emits=st.lists(NAMES, max_size=3),
    effect=st.integers(0, 3),
    timeout=DURATIONS,
    undo=st.none() | st.builds(pb.Undo, timeout=DURATIONS, emits=st.lists(NAMES, max_size=2)),
)


GATES = st.builds(
    pb.Gate,
    name=st.sampled_from(["g", "h"]),
    on=NAMES,
    when=EXPRESSIONS,
    approvers=st.builds(
        pb.Approvers, roles=st.just(["boss"]), requester_field=st.sampled_from(["", "key", "by.name", "."])
    ),
    expires_after=st.none() | DURATIONS,
    on_expiry=st.integers(0, 4),
    on_reject=st.integers(0, 3),
)


RULES = st.builds(
    pb.Rule,
    name=st.sampled_from(["r", "s"]),
    on=st.lists(NAMES, max_size=3),
    when=EXPRESSIONS,
    then=st.integers(0, 4),
)


TEMPLATES = st.builds(
    pb.FlowTemplate,
    name=st.just("order"),
    version=st.just(1),
    starts_with=st.lists(NAMES, max_size=2),
    completes_with=st.lists(NAMES, max_size=2),
    deadline=st.none() | DURATIONS,
    steps=st.lists(STEPS, max_size=4),
    gates=st.lists(GATES, max_size=2),
    rules=st.lists(RULES, max_size=2),
)


@given(TEMPLATES)
@settings(max_examples=200)
def test_no_template_makes_the_check_fail(proto: pb.FlowTemplate) -> None:
    assert {finding.code for finding in check(proto, CONTRACTS)} <= set(CODES)


@given(st.data())
@settings(max_examples=200)
def test_whatever_passes_the_check_compiles(data: st.DataObject) -> None:
    proto = load_yaml(SOUND)
    for _ in range(data.draw(st.integers(0, 2))):
        change(proto, data)
    assume(all(finding.severity != pb.SEVERITY_ERROR for finding in check(proto, CONTRACTS)))
    template = Template.compile(proto, CONTRACTS)
    assert Contracts.from_descriptor_set(template.descriptor_set).knows("shop.v1.Asked")


def change(proto: pb.FlowTemplate, data: st.DataObject) -> None:
    """Something that may be wrong, and may as well be right."""
    step = data.draw(st.sampled_from(list(proto.steps)))
    match data.draw(st.integers(0, 7)):
        case 0:
            step.emits.append(data.draw(NAMES))
        case 1 if step.after:
            step.after.append(data.draw(NAMES))
        case 2 if step.after_all:
            step.after_all[0].count = data.draw(EXPRESSIONS)
        case 3 if proto.gates:
            proto.gates[0].when = data.draw(EXPRESSIONS)
        case 4 if proto.rules:
            proto.rules[0].when = data.draw(EXPRESSIONS)
        case 5 if proto.rules:
            proto.rules[0].on.append(data.draw(NAMES))
        case 6:
            proto.ClearField(data.draw(st.sampled_from(["gates", "rules", "started_by"])))
        case _:
            proto.completes_with.append(data.draw(NAMES))


EVENTS = [f"shop.v1.{name}" for name in ("Asked", "Planned", "Picked", "Missed", "Told")]


FLOWS = st.builds(
    lambda steps, gated: pb.FlowTemplate(
        starts_with=EVENTS[:1],
        completes_with=EVENTS[-1:],
        steps=[pb.Step(name=f"s{number}", after=after, emits=emits) for number, (after, emits) in enumerate(steps)],
        gates=[pb.Gate(name=event, on=event) for event in gated],
    ),
    steps=st.lists(
        st.tuples(
            st.lists(st.sampled_from([*EVENTS[:-1], APPROVAL_REFUSED]), min_size=1, max_size=2, unique=True),
            st.lists(st.sampled_from(EVENTS[1:]), max_size=2, unique=True),
        ),
        min_size=1,
        max_size=5,
    ),
    gated=st.lists(st.sampled_from(EVENTS[1:]), max_size=1),
)


def can_strand(proto: pb.FlowTemplate) -> bool:
    """Whether there is a choice of one answer for each step by which the flow comes to rest without being complete."""
    gated = {gate.on for gate in proto.gates}
    answers = [
        [*(step.emits or ["handrail.v1.StepCompleted"]), *([APPROVAL_REFUSED] if gated & set(step.emits) else [])]
        for step in proto.steps
    ]
    return any(comes_to_rest(proto, choice) for choice in itertools.product(*answers))


def comes_to_rest(proto: pb.FlowTemplate, choice: tuple[str, ...]) -> bool:
    def followers(event: str) -> Iterator[str]:
        return (choice[index] for index, step in enumerate(proto.steps) if event in step.after)

    happened: set[str] = set()

    def rests(event: str, way: tuple[str, ...]) -> bool:
        happened.add(event)
        return event not in way and all(rests(follower, (*way, event)) for follower in followers(event))

    return rests(proto.starts_with[0], ()) and happened.isdisjoint(proto.completes_with)


@given(FLOWS)
@settings(max_examples=500)
def test_a_dead_end_is_reported_exactly_where_a_flow_can_be_stranded(proto: pb.FlowTemplate) -> None:
    reported = {finding.code for finding in check(proto, CONTRACTS)}
    assert bool({"HR011", "HR012"} & reported) == can_strand(proto)
