"""What a version takes away: gates, rules and demands for a second person that are gone or ask less, as sentences.

A change whose direction can't be told, such as another condition, counts as weaker: people look at it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from handrail.analysis.diff.gates import gate_changes, moved, rule_changes
from handrail.analysis.diff.phrases import Names, enumerated
from handrail.mesh.template import Template
from handrail.mesh.template.persons import spelled
from handrail.mesh.template.specs import GateSpec, RuleSpec
from handrail.v1.template_pb2 import ExpiryAction, RejectAction


def weakened(old: Template, new: Template) -> list[str]:
    """What the new version removes or weakens; empty if it asks for at least as much as the old one."""
    names = Names(old.message_types | new.message_types)
    gates = (change for change in gate_changes(old, new, names) if _of_gate(change.path, old, new))
    rules = (change for change in rule_changes(old, new, names) if _of_rule(change.path, old, new))
    return [*(change.text for change in gates), *(change.text for change in rules), *_of_persons(old, new)]


def _of_gate(path: str, old: Template, new: Template) -> bool:
    _, name, *field = path.split(".", 2)
    if name not in new.gates or name not in old.gates:
        return name not in new.gates
    return _GATE_FIELDS[field[0]](old.gates[name], new.gates[name])


def _of_rule(path: str, old: Template, new: Template) -> bool:
    _, name, *field = path.split(".", 2)
    if name not in new.rules or name not in old.rules:
        return name not in new.rules
    return _RULE_FIELDS[field[0]](old.rules[name], new.rules[name])


def _of_persons(old: Template, new: Template) -> Iterator[str]:
    gone = old.require_two - new.require_two
    if gone:
        yield f"One person is enough for {enumerated(spelled(gone).split(', '), 'and')}; before, it took two."


def _asks_less(was: str, now: str) -> bool:
    """Whether a gate or rule with another condition may ask less often; without a condition it always does."""
    threshold = moved(was, now)
    return bool(now) and (threshold is None or threshold.often == "less often")


def _condition(gate: GateSpec) -> str:
    return gate.when.text.strip() if gate.when else ""


_GATE_FIELDS: Mapping[str, Callable[[GateSpec, GateSpec], bool]] = {
    "on": lambda old, new: True,
    "when": lambda old, new: _asks_less(_condition(old), _condition(new)),
    "approvers.roles": lambda old, new: not new.roles <= old.roles,
    "approvers.quorum": lambda old, new: new.quorum < old.quorum,
    "approvers.not_the_requester": lambda old, new: not new.not_the_requester,
    "approvers.requester_field": lambda old, new: True,
    "expires_after": lambda old, new: new.on_expiry == ExpiryAction.EXPIRY_ACTION_APPROVE,
    "on_expiry": lambda old, new: new.on_expiry == ExpiryAction.EXPIRY_ACTION_APPROVE,
    "on_reject": lambda old, new: new.on_reject == RejectAction.REJECT_ACTION_CONTINUE,
}
"""By field of a gate: whether its change may let more pass."""

_RULE_FIELDS: Mapping[str, Callable[[RuleSpec, RuleSpec], bool]] = {
    "on": lambda old, new: not old.on <= new.on,
    "when": lambda old, new: _asks_less(old.when.text.strip(), new.when.text.strip()),
    "then": lambda old, new: True,
}
"""By field of a rule: whether its change may let a flow go on that was stopped before."""
