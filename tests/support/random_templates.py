"""Random templates: steps, joins, gates and rules in any combination that compiles."""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from hypothesis import strategies as st

from handrail.mesh.contracts import Contracts
from handrail.mesh.template import Template
from handrail.v1.template_pb2 import FlowTemplate
from tests.support.shop import shop

TYPES = tuple(f"T{number}" for number in range(10))
Spec = dict[str, Any]
"""A template as JSON."""

REQUESTER = "kim"
OTHER_VERSION = 7


@cache
def contracts() -> Contracts:
    """Ten messages that differ only in their names."""
    return shop(**{name: {"n": "int64", "who": "string"} for name in TYPES})


def message(name: str, n: int, who: str = REQUESTER) -> Message:
    """One of them, by its full name."""
    return contracts().message_class(name)(n=n, who=who)


def full_name(name: str) -> str:
    """A message's name with its package."""
    return f"shop.v1.{name}"


def _seconds(number: int) -> str:
    return f"{number}s"


_RETRY = st.fixed_dictionaries({"max_attempts": st.integers(1, 3), "initial_backoff": st.just("5s")})


@st.composite
def specs(draw: st.DrawFn, *, linear: bool = False) -> Spec:
    """A template with one to four steps that compiles. A `linear` one is a chain without gates and rules."""
    known = [TYPES[0]]
    unused = list(TYPES[1:])
    steps = []
    for number in range(draw(st.integers(1, 4))):
        emits = [unused.pop(0)] if linear or draw(st.booleans()) or len(unused) < 2 else [unused.pop(0), unused.pop(0)]
        steps.append(_step(draw, number, known[-1:] if linear else known, emits, linear=linear))
        known += emits
    gates = [] if linear else [_gate(draw, number, known[1:]) for number in range(draw(st.integers(0, 2)))]
    rules = [] if linear else [_rule(draw, number, known) for number in range(draw(st.integers(0, 2)))]
    waits_for_refusal: bool = draw(st.booleans())
    if gates and waits_for_refusal:
        last = unused.pop(0)
        refusal = _step(draw, 9, [], [last], linear=True)
        steps.append(refusal | {"after": ["handrail.v1.ApprovalRefused"], "after_all": []})
    return {
        "name": "wander",
        "version": 1,
        "starts_with": [full_name(TYPES[0])],
        "started_by": ["a9"],
        "completes_with": steps[-1]["emits"],
        "deadline": "400s",
        "steps": steps,
        "gates": gates,
        "rules": rules,
        "on_divergence": f"DIVERGENCE_ACTION_{draw(st.sampled_from(['RECORD', 'ESCALATE']))}",
        "compensation_order": f"COMPENSATION_ORDER_{draw(st.sampled_from(['NEWEST_FIRST', 'PARALLEL']))}",
    }


@st.composite
def revisions(draw: st.DrawFn, spec: Spec) -> Spec:
    """Another version of a template, with random changes."""
    steps = [dict(step) for step in spec["steps"]]
    for step in steps:
        step["timeout"] = _seconds(draw(st.sampled_from([20, 60])))
        if draw(st.integers(0, 5)) == 0:
            step["agent"] = "a7"
    if len(steps) > 1 and draw(st.integers(0, 3)) == 0:
        del steps[draw(st.integers(0, len(steps) - 1))]
    gates = [dict(gate) for gate in spec["gates"] if draw(st.booleans())]
    # The types that a removed step emitted are no longer facts: no condition can look them up.
    for gate in gates:
        if len(steps) != len(spec["steps"]) and "flow." in gate["when"]:
            gate["when"] = "event.n > 1"
    rules = [dict(rule) for rule in spec["rules"] if len(steps) == len(spec["steps"]) and draw(st.booleans())]
    for rule in rules:
        rule["when"] = draw(st.sampled_from([rule["when"], "event.n > 0"]))
    return spec | {"version": OTHER_VERSION, "steps": steps, "gates": gates, "rules": rules}


def compiled(spec: Spec) -> Template:
    """The template of a specification."""
    return Template.compile(ParseDict(spec, FlowTemplate()), contracts())


def _step(draw: st.DrawFn, number: int, known: list[str], emits: list[str], *, linear: bool) -> Spec:
    effect = draw(st.sampled_from(["NONE", "UNDOABLE", "IRREVERSIBLE"]))
    step: Spec = {
        "name": f"s{number}",
        "agent": f"a{number % 2}",
        "emits": [full_name(name) for name in emits],
        "effect": f"EFFECT_{effect}",
        "timeout": _seconds(draw(st.sampled_from([20, 60]))),
        "retry": draw(_RETRY),
        "on_failure": f"FAILURE_ACTION_{draw(st.sampled_from(['ESCALATE', 'COMPENSATE', 'FAIL']))}",
    }
    if effect == "UNDOABLE":
        step["undo"] = {"timeout": "20s", "retry": draw(_RETRY)}
    if known and not linear and draw(st.integers(0, 3)) == 0:
        chosen = draw(st.lists(st.sampled_from(known), min_size=1, max_size=2, unique=True))
        counts = ["1", "2", f"latest['{full_name(TYPES[0])}'].n"]
        step["after_all"] = [{"type": full_name(name), "count": draw(st.sampled_from(counts))} for name in chosen]
    else:
        triggers = st.lists(st.sampled_from(known), min_size=1, max_size=2, unique=True) if known else st.just([])
        step["after"] = [full_name(name) for name in draw(triggers)]
    return step


def _gate(draw: st.DrawFn, number: int, known: list[str]) -> Spec:
    some = full_name(draw(st.sampled_from(known)))
    conditions = [
        "",
        "event.n > 1",
        "6 / event.n > 2",
        "event.n > flow.first.n",
        f"flow.latest['{some}'].n > 1",
        f"flow.facts['{some}'].map(f, f.n).sum() + flow.proposals['{some}'].map(f, f.n).sum() > 3",
    ]
    return {
        "name": f"g{number}",
        "on": full_name(draw(st.sampled_from(known))),
        "when": draw(st.sampled_from(conditions)),
        "approvers": {
            "roles": ["lead"],
            "quorum": draw(st.integers(1, 2)),
            "not_the_requester": draw(st.booleans()),
            "requester_field": draw(st.sampled_from(["", "who"])),
        },
        "expires_after": _seconds(draw(st.sampled_from([50, 90]))),
        "on_expiry": f"EXPIRY_ACTION_{draw(st.sampled_from(['REJECT', 'APPROVE', 'ESCALATE', 'WAIT']))}",
        "on_reject": f"REJECT_ACTION_{draw(st.sampled_from(['CONTINUE', 'COMPENSATE', 'FAIL']))}",
    }


def _rule(draw: st.DrawFn, number: int, known: list[str]) -> Spec:
    some = full_name(draw(st.sampled_from(known)))
    conditions = [
        "event.n > 2",
        f"flow.counts['{some}'] > 1",
        f"flow.latest['{some}'].n > 1",
        f"flow.facts['{some}'].map(f, f.n).sum() > flow.first.n",
        f"flow.proposals['{some}'].size() > 0",
        "flow.elapsed > duration('60s')",
    ]
    return {
        "name": f"r{number}",
        "on": [full_name(name) for name in draw(st.lists(st.sampled_from(known), min_size=1, max_size=2, unique=True))],
        "when": draw(st.sampled_from(conditions)),
        "then": f"RULE_ACTION_{draw(st.sampled_from(['ESCALATE', 'COMPENSATE', 'FAIL', 'COMPLETE']))}",
    }
