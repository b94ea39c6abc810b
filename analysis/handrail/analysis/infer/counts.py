"""The counts of joins: a constant number, or a number from an earlier message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from handrail.analysis.infer.notes import span, times
from handrail.analysis.infer.traffic import SeenRun
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import HandrailError
from handrail.mesh.wire.envelope import Recorded

_DEPTH = 2
"""The maximum depth in a message to search for a number."""

_WHOLE = frozenset(
    {
        *(FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64),
        *(FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64),
    }
)


def count_of(message_type: str, runs: Sequence[SeenRun], contracts: Contracts) -> tuple[str, str]:
    """The count of a join input (empty for one) and its evidence; `runs` are the runs of the join."""
    numbers = [sum(fact.type == message_type for fact in run.inputs) for run in runs]
    joins = times(len(runs), "join")
    telling = _telling(message_type, numbers, runs, contracts)
    if len(set(numbers)) == 1:
        number = numbers[0]
        also = f"; {telling[0]} was the same number" if telling and number > 1 else ""
        return ("" if number == 1 else str(number)), f"{number} in each of {joins}{also}"
    if telling:
        others = f"; so did {', '.join(telling[1:3])}" if telling[1:] else ""
        return telling[0], f"{span(numbers)} in {joins}, and this was the number each time{others}"
    return str(min(numbers)), f"{span(numbers)} in {joins}, and no recorded message has the number: correct this"


def _telling(message_type: str, numbers: Sequence[int], runs: Sequence[SeenRun], contracts: Contracts) -> list[str]:
    """The expressions that gave the right number each time: inputs of the join first, then the earliest facts."""
    common: dict[str, bool] | None = None
    for run, number in zip(runs, numbers, strict=True):
        found = {
            expression: any(fact.type == name for fact in run.inputs)
            for name, newest in _latest(run).items()
            if name != message_type
            for expression, value in _numbers(name, newest, contracts)
            if value == number
        }
        common = found if common is None else {each: common[each] for each in common if each in found}
    return sorted(common or {}, key=lambda expression: not (common or {})[expression])


def _latest(run: SeenRun) -> dict[str, Recorded]:
    """The newest fact of each type when the inputs of the join were complete; types in order of arrival."""
    newest: dict[str, Recorded] = {}
    for fact in run.flow.facts.values():
        if fact.sequence <= run.inputs[-1].sequence:
            newest[fact.type] = fact
    return newest


def _numbers(name: str, fact: Recorded, contracts: Contracts) -> Iterator[tuple[str, int]]:
    try:
        message = contracts.decode(fact.event.data)
    except HandrailError:
        return
    yield from _fields(f"latest['{name}']", message, _DEPTH)


def _fields(path: str, message: Message, depth: int) -> Iterator[tuple[str, int]]:
    """The whole numbers in a message, and the lengths of its lists, as CEL expressions; outer ones first."""
    inner = []
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            yield f"size({path}.{field.name})", len(value)
        elif field.cpp_type in _WHOLE:
            yield f"{path}.{field.name}", value
        elif field.message_type is not None and message.HasField(field.name) and depth > 1:
            inner.append((f"{path}.{field.name}", value))
    for inner_path, value in inner:
        yield from _fields(inner_path, value, depth - 1)
