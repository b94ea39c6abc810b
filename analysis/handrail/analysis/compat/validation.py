"""Which validation rules of a contract became narrower, and which wider.

A rule that is new or narrower refuses messages that were valid before. If two rules can't be compared (a pattern, a CEL
expression), the new one counts as narrower.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, OneofDescriptorProto
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from handrail.validate import validate_pb2

Scalar: TypeAlias = "bool | int | float | str | bytes"
Rule: TypeAlias = "Scalar | frozenset[Scalar]"
Rules: TypeAlias = dict[str, Rule]
"""Rules by their path in the contract: `string.min_len`, `cel[amount.positive]`."""


class RuleChange(NamedTuple):
    """One rule that changed: its code (RULE_ADDED, RULE_TIGHTENED, …) and a text for people."""

    code: str
    text: str


_LOWER_BOUNDS = frozenset({"gt", "gte", "min_len", "min_bytes", "min_items", "min_pairs"})
_UPPER_BOUNDS = frozenset({"lt", "lte", "max_len", "max_bytes", "max_items", "max_pairs", "within"})
_NO_RULE = frozenset({"example"})
_LENIENT = frozenset({"ignore"})
"""Options that switch rules off: adding one is wider."""


def field_rules(field: FieldDescriptorProto) -> Rules:
    """The rules of a field."""
    return _rules(field.options.Extensions[validate_pb2.field])


def message_rules(message: DescriptorProto) -> Rules:
    """The rules of a message as a whole."""
    return _rules(message.options.Extensions[validate_pb2.message])


def oneof_rules(oneof: OneofDescriptorProto) -> Rules:
    """The rules of a oneof."""
    return _rules(oneof.options.Extensions[validate_pb2.oneof])


def compare(before: Rules, after: Rules) -> Iterator[RuleChange]:
    """The rules that changed, by path."""
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        lenient = path.rpartition(".")[2] in _LENIENT
        if old is None:
            yield RuleChange("RULE_LOOSENED" if lenient else "RULE_ADDED", f"rule {path} is new: {_shown(new)}")
        elif new is None:
            yield RuleChange(
                "RULE_TIGHTENED" if lenient else "RULE_REMOVED", f"rule {path} is gone; it was {_shown(old)}"
            )
        else:
            outside = _is_outside(path, before) or _is_outside(path, after)
            code = "RULE_CHANGED" if outside else _direction(path.rpartition(".")[2], old, new)
            yield RuleChange(code, f"rule {path} was {_shown(old)}, and is {_shown(new)}")


def _direction(name: str, old: Rule, new: Rule) -> str:
    if isinstance(old, frozenset) and isinstance(new, frozenset):
        wider, narrower = (new, old) if name == "in" else (old, new)
        if wider > narrower:
            return "RULE_LOOSENED"
        return "RULE_TIGHTENED" if narrower > wider else "RULE_CHANGED"
    if isinstance(old, int | float) and isinstance(new, int | float):
        if name in _LOWER_BOUNDS:
            return "RULE_TIGHTENED" if new > old else "RULE_LOOSENED"
        if name in _UPPER_BOUNDS:
            return "RULE_TIGHTENED" if new < old else "RULE_LOOSENED"
    return "RULE_CHANGED"


def _is_outside(path: str, rules: Rules) -> bool:
    """Whether the bounds beside this path exclude the values between them, as `lt: 1, gt: 9` does."""
    parent = path.rpartition(".")[0]
    lower = [rules.get(f"{parent}.{name}") for name in ("gt", "gte")]
    upper = [rules.get(f"{parent}.{name}") for name in ("lt", "lte")]
    return any(
        isinstance(low, int | float) and isinstance(high, int | float) and high < low for low in lower for high in upper
    )


def _rules(message: Message) -> Rules:
    return dict(_flat(message, ""))


def _flat(message: Message, path: str) -> Iterator[tuple[str, Rule]]:
    for field, value in message.ListFields():
        here = f"{path}.{field.name}" if path else field.name
        if field.name in _NO_RULE:
            continue
        if field.name == "cel":
            yield from ((f"{_of(path, 'cel')}[{rule.id}]", rule.expression) for rule in value)
        elif field.name == "cel_expression":
            yield from ((f"{_of(path, 'cel')}[{text}]", text) for text in value)
        elif field.name == "oneof" and field.is_repeated:
            yield from ((f"{here}[{', '.join(each.fields)}]", each.required) for each in value)
        elif field.is_repeated:
            yield here, frozenset(map(_scalar, value))
        elif isinstance(value, Message) and not isinstance(value, Duration | Timestamp):
            yield from _flat(value, here)
        elif value is not False or field.name == "const":
            yield here, _scalar(value)
    unknown = type(message)()
    unknown.CopyFrom(message)
    for field, _ in message.ListFields():
        unknown.ClearField(field.name)
    if rest := unknown.SerializeToString(deterministic=True):
        yield _of(path, "predefined"), rest  # the project's own rules, as extensions of the validator's


def _of(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _scalar(value: Scalar | Message) -> Scalar:
    if isinstance(value, Duration):
        return value.ToNanoseconds()
    if isinstance(value, Timestamp):
        return value.ToNanoseconds()
    if isinstance(value, Message):
        return value.SerializeToString(deterministic=True)
    return value


def _shown(rule: Rule | None) -> str:
    if isinstance(rule, frozenset):
        return f"[{', '.join(sorted(map(str, rule)))}]"
    if isinstance(rule, bool):
        return str(rule).lower()
    return f'"{rule}"' if isinstance(rule, str) else str(rule)
