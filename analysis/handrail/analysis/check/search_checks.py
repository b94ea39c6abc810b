"""The checks of the fields that a template declares for search."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message

from handrail.analysis.check.codes import finding
from handrail.mesh.conditions.look_ups import nearest
from handrail.mesh.contracts import Contracts
from handrail.mesh.contracts.field_path import field_at, has_value, is_number, paths_of
from handrail.mesh.printable import cut
from handrail.mesh.template.terms import fact_types
from handrail.v1 import template_pb2 as pb


def check_search(proto: pb.FlowTemplate, contracts: Contracts) -> Iterator[pb.Finding]:
    """Fields that no fact of the flow has, that hold no value, or that are a text in one and a number in another."""
    facts = {name: contracts.message_class(name) for name in sorted(fact_types(proto)) if contracts.knows(name)}
    for index, path in enumerate(proto.search):
        why = _why_not(path, facts)
        if why:
            yield finding("HR038", f"search[{index}]", why)


def _why_not(path: str, facts: dict[str, type[Message]]) -> str:
    fields = {name: field for name, fact in facts.items() if (field := field_at(fact, path)) is not None}
    if not fields:
        known = {each for fact in facts.values() for each in paths_of(fact)}
        return f"no event of the flow has a single field {cut(path)}{nearest(path, known)}"
    for name, field in fields.items():
        if not has_value(field):
            return f"{cut(path)} of {cut(name)} is a message or bytes: name a text, a number, an enum or a truth value"
    numbers = sorted(name for name, field in fields.items() if is_number(field))
    texts = sorted(fields.keys() - numbers)
    if numbers and texts:
        return f"{cut(path)} is a number in {cut(numbers[0])} and a text in {cut(texts[0])}"
    return ""
