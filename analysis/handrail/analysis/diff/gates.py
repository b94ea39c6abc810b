"""The changes of the gates and rules of a template, as sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from handrail.analysis.diff.pairs import Change, pair
from handrail.analysis.diff.phrases import Names, enumerated, people, spoken
from handrail.mesh.template import Template
from handrail.mesh.template.specs import GateSpec, RuleSpec
from handrail.v1.decision_pb2 import RuleAction
from handrail.v1.template_pb2 import ExpiryAction, RejectAction

_THRESHOLD = re.compile(r"\s*(?P<what>[^<>=!&|?]+?)\s*(?P<sign>>=|<=|>|<)\s*(?P<limit>[0-9]+(?:\.[0-9]+)?)\s*")
_FROM = {">=": "from {} on", ">": "above {}", "<=": "up to {}", "<": "below {}"}

_ON_EXPIRY = {
    ExpiryAction.EXPIRY_ACTION_REJECT: ("it counts as refused", "it counted as refused"),
    ExpiryAction.EXPIRY_ACTION_APPROVE: ("it counts as approved", "it counted as approved"),
    ExpiryAction.EXPIRY_ACTION_ESCALATE: ("a person is asked what to do", "a person was asked what to do"),
    ExpiryAction.EXPIRY_ACTION_WAIT: ("it waits forever", "it waited forever"),
}
_ON_REJECT = {
    RejectAction.REJECT_ACTION_CONTINUE: ("the flow goes on with the refusal", "the flow went on with the refusal"),
    RejectAction.REJECT_ACTION_COMPENSATE: ("the flow's effects are undone", "the flow's effects were undone"),
    RejectAction.REJECT_ACTION_FAIL: ("the flow ends as failed", "the flow ended as failed"),
}
_THEN = {
    RuleAction.RULE_ACTION_ESCALATE: ("the flow is held and a person is asked", "such flows are no longer held"),
    RuleAction.RULE_ACTION_COMPENSATE: ("the flow's effects are undone", "such flows' effects are no longer undone"),
    RuleAction.RULE_ACTION_FAIL: ("the flow ends as failed", "such flows no longer end as failed"),
    RuleAction.RULE_ACTION_COMPLETE: ("the flow ends as completed", "such flows no longer end as completed"),
}


def gate_changes(old: Template, new: Template, names: Names) -> Iterator[Change]:
    """The changes, gate by gate."""
    pairs = pair(old.gates, new.gates, lambda gate: (replace(gate, name="", when=None), _when(gate)))
    for was, now in pairs.renamed:
        yield Change(f"gates.{now}", f"Gate {was} is renamed to {now}.")
    for gate in pairs.gone:
        yield Change(f"gates.{gate.name}", _gate_gone(gate, new, names))
    for gate in pairs.new:
        yield Change(f"gates.{gate.name}", _gate_new(gate, old, names))
    for was_gate, gate in pairs.kept:
        for field, text in _gate_differences(was_gate, gate, names):
            yield Change(f"gates.{gate.name}.{field}", text)


def rule_changes(old: Template, new: Template, names: Names) -> Iterator[Change]:
    """The changes, rule by rule."""
    pairs = pair(old.rules, new.rules, lambda rule: (rule.on, rule.when.text.strip(), rule.then))
    for was, now in pairs.renamed:
        yield Change(f"rules.{now}", f"Rule {was} is renamed to {now}.")
    for rule in pairs.gone:
        when = f"{names.any_of(rule.on)} with {_quoted(rule.when.text)}"
        text = f"Rule {rule.name} is gone (it was: at each {when}): {_THEN[rule.then][1]}."
        yield Change(f"rules.{rule.name}", text)
    for rule in pairs.new:
        when = f"{names.any_of(rule.on)} with {_quoted(rule.when.text)}"
        text = f"A new rule {rule.name}: at each {when}, {_THEN[rule.then][0]}."
        yield Change(f"rules.{rule.name}", text)
    for was_rule, rule in pairs.kept:
        for field, text in _rule_differences(was_rule, rule, names):
            yield Change(f"rules.{rule.name}.{field}", text)


def _gate_new(gate: GateSpec, old: Template, names: Names) -> str:
    what = names.short(gate.on)
    condition = f" with {_quoted(gate.when.text)}" if gate.when else ""
    text = f"A new gate {gate.name}: {_voters(gate)} must approve each {what}{condition}."
    return text if old.gates_on(gate.on) else f"{text} {what} counts only once it is released."


def _gate_gone(gate: GateSpec, new: Template, names: Names) -> str:
    what = names.short(gate.on)
    text = f"Gate {gate.name} is gone: it asked {_voters(gate)}."
    return text if new.gates_on(gate.on) else f"{text} {what} passes without asking anybody."


def _gate_differences(old: GateSpec, new: GateSpec, names: Names) -> Iterator[tuple[str, str]]:
    gate = f"Gate {new.name}"
    if old.on != new.on:
        yield "on", f"{gate} guards {names.short(new.on)} instead of {names.short(old.on)}."
    if _when(old) != _when(new):
        yield "when", _asks(old, new)
    if old.roles != new.roles:
        now, before = (enumerated(each.roles, "or") for each in (new, old))
        yield "approvers.roles", f"{gate} takes votes of {now} instead of {before}."
    if old.quorum != new.quorum:
        yield "approvers.quorum", f"{gate} needs {people(new.quorum)} to approve instead of {people(old.quorum)}."
    if old.not_the_requester != new.not_the_requester:
        may = "may no longer vote" if new.not_the_requester else "may vote too"
        yield "approvers.not_the_requester", f"{gate}: the requester {may}."
    if old.requester_field != new.requester_field:
        now, before = (_requester(each) for each in (new, old))
        yield "approvers.requester_field", f"{gate} takes {now} for the requester instead of {before}."
    if old.expires_after != new.expires_after:
        now, before = ("no limit" if each is None else spoken(each) for each in (new.expires_after, old.expires_after))
        yield "expires_after", f"{gate} gives people {now} to answer instead of {before}."
    if old.on_expiry != new.on_expiry:
        now, before = _ON_EXPIRY[new.on_expiry][0], _ON_EXPIRY[old.on_expiry][1]
        yield "on_expiry", f"{gate}: when nobody answers a proposal in time, {now}; before, {before}."
    if old.on_reject != new.on_reject:
        now, before = _ON_REJECT[new.on_reject][0], _ON_REJECT[old.on_reject][1]
        yield "on_reject", f"{gate}: after a refusal, {now}; before, {before}."


def _rule_differences(old: RuleSpec, new: RuleSpec, names: Names) -> Iterator[tuple[str, str]]:
    rule = f"Rule {new.name}"
    for each in sorted(new.on - old.on):
        yield "on", f"{rule} looks at each {names.short(each)} too."
    for each in sorted(old.on - new.on):
        yield "on", f"{rule} no longer looks at {names.short(each)}."
    was, now = old.when.text.strip(), new.when.text.strip()
    if was != now:
        shift = moved(was, now)
        trips = f"{shift.now} instead of {shift.before}" if shift else f"when {_quoted(now)}"
        often = f", so {shift.often}" if shift else ""
        yield "when", f"{rule} trips {trips}{often} ({_versus(was, now) if shift else f'was: {_quoted(was)}'})."
    if old.then != new.then:
        yield "then", f"When rule {new.name} trips, {_THEN[new.then][0]}; before, {_THEN[old.then][0]}."


def _asks(old: GateSpec, new: GateSpec) -> str:
    was, now = _when(old), _when(new)
    subject = f"Gate {new.name} asks {_voters(new)}"
    shift = moved(was, now)
    if shift:
        return f"{subject} {shift.now} instead of {shift.before}, so {shift.often} ({_versus(was, now)})."
    if not now:
        return f"{subject} always (was: only when {_quoted(was)})."
    return f"{subject} only when {_quoted(now)} (was: {f'when {_quoted(was)}' if was else 'always'})."


class Moved(NamedTuple):
    """A threshold that moved: "from 500 on", "from 1000 on", "more often"."""

    now: str
    before: str
    often: str


def moved(was: str, now: str) -> Moved | None:
    """The move of a threshold, if only its number changed; else None."""
    old, new = _THRESHOLD.fullmatch(was), _THRESHOLD.fullmatch(now)
    if old is None or new is None or (old["what"], old["sign"]) != (new["what"], new["sign"]):
        return None
    phrase = _FROM[new["sign"]]
    lower = float(new["limit"]) < float(old["limit"])
    often = "more often" if lower == new["sign"].startswith(">") else "less often"
    return Moved(phrase.format(new["limit"]), old["limit"], often)


def _versus(was: str, now: str) -> str:
    return f"{_quoted(now)}; was: {_quoted(was)}"


def _when(gate: GateSpec) -> str:
    return gate.when.text.strip() if gate.when else ""


def _voters(gate: GateSpec) -> str:
    return f"{people(gate.quorum)} of {enumerated(gate.roles, 'or')}"


def _requester(gate: GateSpec) -> str:
    return f"the field {gate.requester_field}" if gate.requester_field else "who started the flow"


def _quoted(text: str) -> str:
    return f'"{" ".join(text.split())}"'
