"""What changed between the values of two states of one enum. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor_pb2 import EnumDescriptorProto

from handrail.analysis.compat.change import Change, Level


def value_changes(name: str, file: str, old: EnumDescriptorProto, new: EnumDescriptorProto) -> Iterator[Change]:
    """Compares enums number by number, since the bytes hold numbers. A name found under another number has moved."""
    had, has = _numbers(old), _numbers(new)
    moved = {value for value, number in had.items() if has.get(value, number) != number}
    for value in sorted(moved, key=had.__getitem__):
        text = f"value {value} had number {had[value]}, and has {has[value]}"
        yield Change(name, value, "ENUM_VALUE_RENUMBERED", Level.BREAKING_WIRE, file, text)
    before, after = _names(had), _names(has)
    for number, names in before.items():
        left, now = names - moved, after.get(number, frozenset()) - moved
        if left and not now:
            text = f"value {min(left)} = {number} is gone"
            yield Change(name, min(left), "ENUM_VALUE_REMOVED", Level.BREAKING_WIRE, file, text)
        elif not left <= now:
            text = f"value {number} was called {_listed(left)}, and is {_listed(now)}"
            yield Change(name, min(left - now), "ENUM_VALUE_RENAMED", Level.BREAKING_SOURCE, file, text)
    for number, names in after.items():
        if (added := names - moved) and not before.get(number, frozenset()) - moved:
            text = (
                f"value {min(added)} = {number} is new; if a field has the rule enum.defined_only, flows that began "
                "with the old contracts refuse it"
            )
            yield Change(name, min(added), "ENUM_VALUE_ADDED", Level.COMPATIBLE, file, text)


def _numbers(enum: EnumDescriptorProto) -> dict[str, int]:
    return {value.name: value.number for value in enum.value}


def _names(numbers: dict[str, int]) -> dict[int, frozenset[str]]:
    """The names of each number; aliases give a number several names."""
    names: dict[int, frozenset[str]] = {}
    for name, number in numbers.items():
        names[number] = names.get(number, frozenset()) | {name}
    return names


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
