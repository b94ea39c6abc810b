"""Reasons of a verdict: the values that a condition read, as text for people."""

from __future__ import annotations

import re
from collections.abc import Iterator

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from handrail.analysis.replay.trial import Facts
from handrail.mesh.conditions.look_ups import COUNTS, FACTS, PROPOSALS
from handrail.mesh.conditions.policy import Policy
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import HandrailError
from handrail.mesh.printable import cut
from handrail.mesh.wire.envelope import Recorded

_TEXT = r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
_READ = re.compile(
    rf"(?P<latest>flow\s*\.\s*latest\s*\[\s*(?P<quoted>{_TEXT})\s*\])(?P<in_latest>(?:\s*\.\s*[a-z_]\w*)*)"
    rf"|\bflow\s*\.\s*first\b(?P<in_first>(?:\s*\.\s*[a-z_]\w*)+)"
    rf"|\bevent(?P<in_event>(?:\s*\.\s*[a-z_]\w*)+)"
    rf"|{_TEXT}"
)


def values_read(when: Policy, recorded: Recorded, contracts: Contracts, facts: Facts | None = None) -> str:
    """The values that a condition read: `event.amount.units = 640, flow.counts['…'] = 2`; empty if it reads none."""
    return cut(", ".join(dict.fromkeys(_values(when, recorded, contracts, facts))), 300)


def _values(when: Policy, recorded: Recorded, contracts: Contracts, facts: Facts | None) -> Iterator[str]:
    for match in _READ.finditer(when.text):
        if match["in_event"]:
            yield from _field(f"event{_tight(match['in_event'])}", contracts, recorded.event.data, match["in_event"])
        elif match["latest"] and facts is not None:
            message_type = match["quoted"][1:-1]
            there = facts.by_type.get(message_type)
            name = f"flow.latest['{message_type}']"
            if there:
                yield from _field(
                    f"{name}{_tight(match['in_latest'])}", contracts, there[-1].event.data, match["in_latest"]
                )
            else:
                yield f"{name} is missing"
        elif match["in_first"] and facts is not None:
            name = f"flow.first{_tight(match['in_first'])}"
            yield from _field(name, contracts, facts.first.event.data, match["in_first"])
    if facts is None:
        return
    at = facts.at(recorded, contracts)
    for table, message_type in when.reads(recorded.type):
        if table in (COUNTS, FACTS):
            yield f"{table}['{message_type}']{' has' if table == FACTS else ' ='} {at.count(message_type)}"
        elif table == PROPOSALS:
            yield f"{table}['{message_type}'] has {len(at.proposals(message_type))}"
    if re.search(r"\bflow\s*\.\s*elapsed\b", when.text):
        yield f"flow.elapsed = {at.elapsed.total_seconds():g}s"


def _tight(path: str) -> str:
    return "".join(path.split())


def _field(name: str, contracts: Contracts, data: Any, path: str) -> Iterator[str]:
    """The value at the end of a path of fields; nothing if the path leads through something other than a message."""
    try:
        value: object = contracts.decode(data)
    except HandrailError:
        return
    for step in filter(None, _tight(path).split(".")):
        if not isinstance(value, Message) or step not in value.DESCRIPTOR.fields_by_name:
            return
        enum = value.DESCRIPTOR.fields_by_name[step].enum_type
        value = getattr(value, step)
        if enum is not None and isinstance(value, int) and value in enum.values_by_number:
            yield f"{name} = {enum.values_by_number[value].name}"
            return
    if not isinstance(value, Message):
        yield f"{name} = {value!r}" if isinstance(value, str | bytes) else f"{name} = {value}"
