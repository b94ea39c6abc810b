"""Infers rules from the decisions that record their trips. A rule that never tripped leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from handrail.analysis.infer.notes import Notes, times
from handrail.analysis.infer.traffic import Traffic
from handrail.mesh.errors import HandrailError
from handrail.mesh.printable import cut
from handrail.mesh.template.terms import Terms
from handrail.v1 import template_pb2 as pb
from handrail.v1.decision_pb2 import RuleTripped

_TRIPPED = RuleTripped.DESCRIPTOR.full_name


def infer_rules(flows: Sequence[Traffic], terms: Terms, notes: Notes) -> Iterator[pb.Rule]:
    """The rules that tripped with a recorded condition."""
    trips: dict[str, list[tuple[RuleTripped, str]]] = {}
    for flow in flows:
        for each in flow.decisions(_TRIPPED):
            tripped = RuleTripped.FromString(each.event.data.value)
            fact = flow.facts.get(tripped.event_id)
            if fact is not None:
                trips.setdefault(tripped.rule, []).append((tripped, fact.type))
    number = 0
    for name, seen in trips.items():
        on = list(dict.fromkeys(message_type for _, message_type in seen))
        conditions = list(dict.fromkeys(tripped.detail for tripped, _ in seen))
        when = next((each for each in conditions if _compiles(each, on, terms)), None)
        if when is None:
            notes.add("", f"Rule {name} tripped in {times(len(seen), 'flow')}: {cut(conditions[0])}.")
            continue
        notes.add(
            f"rules[{number}]", f"tripped in {times(len(seen), 'flow')}; it may look at more events than it tripped at"
        )
        yield pb.Rule(name=name, on=on, when=when, then=seen[-1][0].then)
        number += 1


def _compiles(text: str, on: Sequence[str], terms: Terms) -> bool:
    try:
        terms.parse(text, on)
    except HandrailError:
        return False
    return True
