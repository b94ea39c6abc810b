"""Comparisons of the fields, by their types. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from handrail.mesh.conditions.look_ups import nearest
from handrail.mesh.errors import HandrailError
from handrail.mesh.wire import ids
from handrail.visibility.filter import quantity
from handrail.visibility.filter.attributes import text_test
from handrail.visibility.filter.condition import (
    All,
    Compare,
    Condition,
    Either,
    HasRow,
    IsOneOf,
    No,
    OfFlow,
    Present,
    Test,
    equal,
)
from handrail.visibility.filter.fields import PENDING, STATUSES, Field, Scope, Type
from handrail.visibility.filter.syntax import Comparator, Comparison
from handrail.visibility.filter.tokens import refusal, shown

MAX_KEY_TYPES = 100
"""The most flow types in which one key is looked for."""

_EQUALITY = (Comparator.EQUAL, Comparator.HAS)
_MIRRORED = {
    Comparator.LESS: Comparator.GREATER,
    Comparator.AT_MOST: Comparator.AT_LEAST,
    Comparator.GREATER: Comparator.LESS,
    Comparator.AT_LEAST: Comparator.AT_MOST,
}
"""The comparators of times for those of distances back in time: less long ago is later."""


def compared(node: Comparison, field: Field, scope: Scope) -> Condition:
    """The condition for a comparison with any comparator but `!=`. Raises BAD_FILTER if the field does not take it."""
    return _BY_TYPE[field.type](node, field, scope)


def flag(name: str, now: datetime) -> Condition:
    """The condition of a field that is true or false."""
    past = Compare(Comparator.LESS, now)
    match name:
        case "stuck":
            return HasRow("escalation", (("escalation_id", Present()),))
        case "retrying":
            return OfFlow("retrying", equal(True))
        case "waiting":
            return HasRow("approval", (("status", PENDING),))
        case "overdue":
            late = All((No(OfFlow("ended", Present())), OfFlow("deadline", past)))
            return Either((HasRow("owed", (("due", past),)), late))
    raise KeyError(name)


def _text(node: Comparison, field: Field, scope: Scope) -> Condition:
    _expect(node, _EQUALITY)
    return _anywhere(field, text_test(node.comparator, node.value))


def _status(node: Comparison, field: Field, scope: Scope) -> Condition:
    _expect(node, _EQUALITY)
    name = _plain(node).upper()
    if name not in STATUSES:
        raise _mistyped(node, field, nearest(name, STATUSES))
    return _anywhere(field, equal(name))


def _true_or_false(node: Comparison, field: Field, scope: Scope) -> Condition:
    _expect(node, _EQUALITY)
    condition = flag(node.name, scope.now)
    match _plain(node).lower():
        case "true":
            return condition
        case "false":
            return No(condition)
    raise _mistyped(node, field)


def _whole(node: Comparison, field: Field, scope: Scope) -> Condition:
    value = quantity.whole(_plain(node))
    if value is None:
        raise _mistyped(node, field)
    comparator = Comparator.EQUAL if node.comparator is Comparator.HAS else node.comparator
    return _anywhere(field, Compare(comparator, value))


def _past(node: Comparison, field: Field, scope: Scope) -> Condition:
    duration = quantity.duration(_plain(node))
    if duration is None:
        return _time(node, field)
    _expect(node, tuple(_MIRRORED))
    return _anywhere(field, Compare(_MIRRORED[node.comparator], scope.now - duration))


def _future(node: Comparison, field: Field, scope: Scope) -> Condition:
    duration = quantity.duration(_plain(node))
    if duration is None:
        return _time(node, field)
    _expect(node, tuple(_MIRRORED))
    return _anywhere(field, Compare(node.comparator, scope.now + duration))


def _age(node: Comparison, field: Field, scope: Scope) -> Condition:
    _expect(node, tuple(_MIRRORED))
    if quantity.duration(_plain(node)) is None:
        raise _mistyped(node, field)
    return _past(node, field, scope)


def _time(node: Comparison, field: Field) -> Condition:
    if node.comparator is Comparator.HAS and node.value.is_anything:
        return _anywhere(field, Present())
    _expect(node, tuple(_MIRRORED), " (or :* for any time)")
    time = quantity.time(_plain(node))
    if time is None:
        raise _mistyped(node, field)
    return _anywhere(field, Compare(node.comparator, time))


def _key(node: Comparison, field: Field, scope: Scope) -> Condition:
    _expect(node, (Comparator.EQUAL,))
    if node.value.has_wildcard:
        raise refusal(node.value.column, "a key is looked up as a whole: it takes no *")
    if not 0 < len(scope.flow_types) <= MAX_KEY_TYPES:
        raise refusal(node.column, "a key belongs to a flow type: name it, as in flow_type = TYPE AND key = KEY")
    key = node.value.text
    return IsOneOf(tuple((each, ids.flow_id_from_key(each, key)) for each in sorted(scope.flow_types)))


_BY_TYPE: Mapping[Type, Callable[[Comparison, Field, Scope], Condition]] = {
    Type.TEXT: _text,
    Type.STATUS: _status,
    Type.FLAG: _true_or_false,
    Type.WHOLE: _whole,
    Type.PAST: _past,
    Type.FUTURE: _future,
    Type.AGE: _age,
    Type.KEY: _key,
}


def _anywhere(field: Field, test: Test) -> Condition:
    found = tuple(place.where(test) for place in field.places)
    return found[0] if len(found) == 1 else Either(found)


def _plain(node: Comparison) -> str:
    """The value's text; with a wildcard, which only texts take, a text that is no value of another type."""
    return "*" if node.value.has_wildcard else node.value.text


def _expect(node: Comparison, comparators: tuple[Comparator, ...], hint: str = "") -> None:
    if node.comparator not in comparators:
        listed = " ".join(comparators).replace("=", "= !=", Comparator.EQUAL in comparators)
        raise refusal(node.column, f'{node.name} is compared by {listed}{hint}, not by "{node.comparator}"')


def _mistyped(node: Comparison, field: Field, hint: str = "") -> HandrailError:
    return refusal(node.value.column, f"{node.name} is {field.type.value}; found {shown(str(node.value))}{hint}")
