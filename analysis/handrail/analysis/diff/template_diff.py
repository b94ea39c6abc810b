"""The changes for flows from one template to another, as sentences. Compares meaning, not spelling: an explicit default
or another order of steps is not a change.
"""

from __future__ import annotations

from collections.abc import Iterator

from handrail.analysis.diff.contracts import contract_changes
from handrail.analysis.diff.gates import gate_changes, rule_changes
from handrail.analysis.diff.pairs import Change
from handrail.analysis.diff.phrases import Names, spoken
from handrail.analysis.diff.steps import step_changes
from handrail.mesh.flow import MESSAGE_LIMIT
from handrail.mesh.template import Template
from handrail.mesh.template.persons import spelled

__all__ = ["Change", "diff"]

_SETS = (
    ("starts_with", "A flow may start with {}.", "A flow may no longer start with {}."),
    ("started_by", "Agent {} may start flows.", "Agent {} may no longer start flows."),
    ("completes_with", "{} completes a flow.", "{} no longer completes a flow."),
    ("search", "Flows are found by {}.", "Flows are no longer found by {}."),
)
_DIVERGENCE = {
    True: "A divergence holds the flow, and a person is asked; before, it was recorded and the flow went on.",
    False: "A divergence is recorded, and the flow goes on; before, the flow was held and a person was asked.",
}


def diff(old: Template, new: Template) -> list[Change]:
    """The changes, in the order of the template's parts, contracts last; empty if nothing changes for flows."""
    names = Names(old.message_types | new.message_types)
    return [
        *_flow_changes(old, new, names),
        *step_changes(old, new, names),
        *gate_changes(old, new, names),
        *rule_changes(old, new, names),
        *contract_changes(old, new),
    ]


def _flow_changes(old: Template, new: Template, names: Names) -> Iterator[Change]:
    if old.name != new.name:
        yield Change("name", f"The templates are of different flow types: {old.name} and {new.name}.")
    for path, begun, ended in _SETS:
        was, now = (frozenset[str](getattr(template, path)) for template in (old, new))
        yield from (Change(path, begun.format(names.short(each))) for each in sorted(now - was))
        yield from (Change(path, ended.format(names.short(each))) for each in sorted(was - now))
    if old.deadline != new.deadline:
        text = f"A flow may take {spoken(new.deadline)} instead of {spoken(old.deadline)} before a person is asked."
        yield Change("deadline", text)
    if old.parallel_undo != new.parallel_undo:
        order = ("the newest first, one after the other", "all at once")
        text = f"Effects are undone {order[new.parallel_undo]}; before, {order[old.parallel_undo]}."
        yield Change("compensation_order", text)
    for act in sorted(old.require_two ^ new.require_two):
        needs = "needs two persons" if act in new.require_two else "no longer needs two persons"
        yield Change("require_two", f"{spelled([act])} {needs}.")
    if old.confirm_within != new.confirm_within:
        text = f"A second person has {spoken(new.confirm_within)} instead of {spoken(old.confirm_within)} to confirm."
        yield Change("confirm_within", text)
    if old.max_messages != new.max_messages:
        most = [each.max_messages or MESSAGE_LIMIT for each in (old, new)]
        yield Change("max_messages", f"A flow is held at {most[1]} messages; before, at {most[0]}.")
    if _kept(old) != _kept(new):
        yield Change(
            "keep_forever" if new.keep_forever else "retention",
            f"Finished flows {_kept(new)}; before, they {_kept(old)}.",
        )
    if old.asks_on_divergence != new.asks_on_divergence:
        yield Change("on_divergence", _DIVERGENCE[new.asks_on_divergence])


def _kept(template: Template) -> str:
    if template.keep_forever:
        return "stay in the stream for ever"
    if template.retention is None:
        return "are purged as the installation says"
    return f"are purged {spoken(template.retention)} after their last message"
