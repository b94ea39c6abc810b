"""The type-check on random templates: sound ones have no finding, and a planted fault is found where it was planted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from random import Random

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from handrail.analysis.check.bounds import Bounds
from handrail.analysis.check.graph import FlowGraph
from handrail.analysis.check.typecheck import check
from handrail.v1 import template_pb2 as pb
from handrail.v1.decision_pb2 import RuleAction
from tests.support.random_templates import Spec
from tests.support.sound_templates import STRAY, contracts, parsed, sound_specs

Plant = Callable[[Spec, st.DataObject], str]
"""Breaks a sound template, and says where the finding has to be."""


@given(sound_specs())
def test_a_sound_template_has_no_finding(spec: Spec) -> None:
    assert check(parsed(spec), contracts()) == []


def some_step(spec: Spec, data: st.DataObject, **wanted: object) -> int:
    fitting = [
        index
        for index, step in enumerate(spec["steps"])
        if all(bool(step.get(name)) == value for name, value in wanted.items())
    ]
    assume(fitting)
    return data.draw(st.sampled_from(fitting))


def unknown_type(spec: Spec, data: st.DataObject) -> str:
    index = some_step(spec, data, after=True)
    spec["steps"][index]["after"][0] = "shop.v1.Nothing"
    return f"steps[{index}].after[0]"


def same_name(spec: Spec, data: st.DataObject) -> str:
    assume(len(spec["steps"]) > 1)
    index = data.draw(st.integers(1, len(spec["steps"]) - 1))
    spec["steps"][index]["name"] = spec["steps"][0]["name"]
    return f"steps[{index}].name"


def reserved_agent(spec: Spec, data: st.DataObject) -> str:
    index = some_step(spec, data)
    spec["steps"][index]["agent"] = "coordinator"
    return f"steps[{index}].agent"


def unreachable(spec: Spec, data: st.DataObject) -> str:
    spec["steps"].append(spec["steps"][0] | {"name": "lost", "after": [STRAY], "after_all": [], "emits": [STRAY]})
    return f"steps[{len(spec['steps']) - 1}]"


def no_such_end(spec: Spec, data: st.DataObject) -> str:
    spec["completes_with"].append(STRAY)
    return f"completes_with[{len(spec['completes_with']) - 1}]"


def nobody_emits(spec: Spec, data: st.DataObject) -> str:
    index = some_step(spec, data, after=True)
    spec["steps"][index]["after"].append(STRAY)
    return f"steps[{index}].after[{len(spec['steps'][index]['after']) - 1}]"


def dead_end(spec: Spec, data: st.DataObject) -> str:
    assume(all(len(step["after_all"]) < 2 for step in spec["steps"]))  # beside a branch that goes on it is no dead end
    index = some_step(spec, data)
    spec["steps"][index]["emits"].append(STRAY)
    return f"steps[{index}].emits[{len(spec['steps'][index]['emits']) - 1}]"


def endless(spec: Spec, data: st.DataObject) -> str:
    assume(len(spec["rules"]))
    counted = spec["rules"].pop()["on"][0]
    return f"steps[{next(index for index, step in enumerate(spec['steps']) if counted in step['emits'])}]"


def a_rule_that_counts_something_else(spec: Spec, data: st.DataObject) -> str:
    assume(len(spec["rules"]))
    rule = spec["rules"][-1]
    counted = rule["on"][0]
    rule["when"] += " && event.n > 1u"
    return f"steps[{next(index for index, step in enumerate(spec['steps']) if counted in step['emits'])}]"


def no_undo(spec: Spec, data: st.DataObject) -> str:
    index = some_step(spec, data, undo=False)
    spec["steps"][index]["effect"] = "EFFECT_UNDOABLE"
    return f"steps[{index}]"


def undo_of_nothing(spec: Spec, data: st.DataObject) -> str:
    index = some_step(spec, data, undo=False)
    spec["steps"][index]["undo"] = {"timeout": "5s"}
    return f"steps[{index}].undo"


def starving(spec: Spec, data: st.DataObject) -> str:
    index = some_step(spec, data, after_all=True)
    joins = spec["steps"][index]["after_all"]
    spec["steps"].append(
        {"name": "maybe", "agent": "a9", "effect": "EFFECT_NONE", "timeout": "5s", "after": spec["starts_with"]}
        | {"emits": [STRAY, spec["completes_with"][0]]}
    )
    joins.append({"type": STRAY})
    return f"steps[{index}].after_all[{len(joins) - 1}]"


def no_bound(spec: Spec, data: st.DataObject) -> str:
    index = some_step(spec, data, after_all=True)
    join = spec["steps"][index]["after_all"][0]
    assume("count" in join)
    join["count"] += " + 1u"
    return f"steps[{index}].after_all[0].count"


def no_expiry(spec: Spec, data: st.DataObject) -> str:
    assume(len(spec["gates"]))
    del spec["gates"][0]["expires_after"]
    return "gates[0]"


def wrong_condition(spec: Spec, data: st.DataObject) -> str:
    assume(len(spec["gates"]))
    spec["gates"][0]["when"] = data.draw(st.sampled_from(["event.m > 1u", "event.n", "flow.elapsed > 1", "(", "who"]))
    return "gates[0].when"


def too_long(spec: Spec, data: st.DataObject) -> str:
    index = some_step(spec, data)
    spec["steps"][index]["timeout"] = "601s"
    return f"steps[{index}].timeout"


FAULTS: dict[str, tuple[Plant, ...]] = {
    "HR002": (unknown_type,),
    "HR004": (same_name,),
    "HR005": (reserved_agent,),
    "HR007": (unreachable,),
    "HR008": (no_such_end,),
    "HR009": (nobody_emits,),
    "HR011": (dead_end,),
    "HR013": (endless, a_rule_that_counts_something_else),
    "HR015": (no_undo,),
    "HR016": (undo_of_nothing,),
    "HR023": (no_expiry,),
    "HR027": (wrong_condition,),
    "HR028": (too_long,),
    "HR031": (starving,),
    "HR033": (no_bound,),
}


@given(st.data(), st.sampled_from([(code, plant) for code, plants in FAULTS.items() for plant in plants]))
@settings(max_examples=200)
def test_a_planted_fault_is_found_where_it_was_planted(data: st.DataObject, fault: tuple[str, Plant]) -> None:
    code, plant = fault
    spec = data.draw(sound_specs())
    path = plant(spec, data)
    assert (code, path) in {(found.code, found.path) for found in check(parsed(spec), contracts())}


# --- What can starve, and how much can come, against every way that a flow can go ---

EVENTS = [f"shop.v1.T{number}" for number in range(5)]


@st.composite
def any_of(draw: st.DrawFn) -> pb.FlowTemplate:
    """Steps that wait for any of some events, and answer with one of some."""
    steps = draw(
        st.lists(
            st.tuples(
                st.lists(st.sampled_from(EVENTS), min_size=1, max_size=2, unique=True),
                st.lists(st.sampled_from(EVENTS[1:]), min_size=1, max_size=2, unique=True),
            ),
            min_size=1,
            max_size=4,
        )
    )
    limited = draw(st.lists(st.sampled_from(EVENTS[1:]), max_size=2, unique=True))
    return pb.FlowTemplate(
        starts_with=EVENTS[:1],
        steps=[pb.Step(name=f"s{number}", after=after, emits=emits) for number, (after, emits) in enumerate(steps)],
        rules=[
            pb.Rule(name=event, on=[event], when=f"flow.counts['{event}'] >= 2", then=RuleAction.RULE_ACTION_FAIL)
            for event in limited
        ],
    )


def ways(proto: pb.FlowTemplate) -> Iterator[frozenset[str]]:
    """The events of a flow, for every choice of an answer by each step to each event."""
    asked = [(event, step) for step in proto.steps for event in step.after]
    for answers in itertools.product(*(step.emits for _, step in asked)):
        happened = {EVENTS[0]}
        grown = True
        while grown:
            more = {answer for (event, _), answer in zip(asked, answers, strict=True) if event in happened}
            grown = not more <= happened
            happened |= more
        yield frozenset(happened)


@given(any_of(), st.sampled_from(EVENTS), st.sampled_from(EVENTS))
@settings(max_examples=300)
def test_one_event_can_come_without_another_exactly_where_a_flow_can_go_so(
    proto: pb.FlowTemplate, event: str, missing: str
) -> None:
    expected = any(event in happened and missing not in happened for happened in ways(proto))
    assert FlowGraph(proto).can_come_without(event, missing) == expected


@given(any_of(), st.randoms())
@settings(max_examples=300)
def test_no_flow_holds_more_than_its_bound(proto: pb.FlowTemplate, random: Random) -> None:
    graph = FlowGraph(proto)
    bounds = Bounds(proto, graph, contracts())
    limits = {rule.name: 2 for rule in proto.rules}
    counts = dict.fromkeys(EVENTS, 0)
    waiting = [EVENTS[0]]
    while waiting and sum(counts.values()) < 60:
        event = waiting.pop()
        counts[event] += 1
        if counts[event] == limits.get(event):
            break  # the rule has ended the flow
        waiting += [random.choice(list(step.emits)) for step in proto.steps if event in step.after]
    for event, count in counts.items():
        bound = bounds.facts(event)
        assert bound is None or count <= bound
    if all(bounds.facts(event) is not None for event in graph.possible):
        assert not any(graph.goes_round(cycle, bounds.limits) for cycle in graph.cycles if cycle <= graph.reachable)
