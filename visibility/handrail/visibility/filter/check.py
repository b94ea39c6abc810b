"""Checks the names and values of a filter, and says what it asks of the index. Pure."""

from __future__ import annotations

from dataclasses import replace

from handrail.mesh.conditions.look_ups import nearest
from handrail.visibility.filter import attributes, comparison
from handrail.visibility.filter.condition import All, Condition, Either, No
from handrail.visibility.filter.fields import ATTRIBUTES, FIELDS, Scope, Type
from handrail.visibility.filter.syntax import And, Comparator, Comparison, Node, Not, Or, Word
from handrail.visibility.filter.tokens import refusal, shown


def check(node: Node, scope: Scope) -> Condition:
    """Returns what a filter asks for. Raises BAD_FILTER for an unknown field and for a value that it doesn't take."""
    match node:
        case And(items):
            narrowed = _narrowed(items, scope)
            return All(tuple(check(item, narrowed) for item in items))
        case Or(items):
            return Either(tuple(check(item, scope) for item in items))
        case Not(item):
            return No(check(item, scope))
        case Word():
            return _word(node, scope)
        case Comparison(comparator=Comparator.NOT_EQUAL):
            return No(_compared(replace(node, comparator=Comparator.EQUAL), scope))
        case Comparison():
            return _compared(node, scope)


def _narrowed(items: tuple[Node, ...], scope: Scope) -> Scope:
    """The scope without the flow types that the items rule out: a key is not looked for there."""
    named = frozenset(
        item.value.text
        for item in items
        if isinstance(item, Comparison)
        and (item.name, item.comparator) == ("flow_type", Comparator.EQUAL)
        and not item.value.has_wildcard
    )
    return replace(scope, flow_types=named) if named else scope


def _word(word: Word, scope: Scope) -> Condition:
    value = word.value
    field = None if value.quoted or value.has_wildcard else FIELDS.get(value.text)
    if field is None:
        return attributes.searched(value)
    if field.type is Type.FLAG:
        return comparison.flag(value.text, scope.now)
    raise refusal(
        value.column, f'{value.text} is a field: compare it with a value; to search for the word, write "{value.text}"'
    )


def _compared(node: Comparison, scope: Scope) -> Condition:
    field = FIELDS.get(node.name)
    if field is not None:
        return comparison.compared(node, field, scope)
    if node.name == ATTRIBUTES:
        return _has_attribute(node, scope)
    if node.name in scope.attributes:
        return attributes.compared(node.name, node.comparator, node.value)
    prefix, dot, name = node.name.partition(".")
    if prefix != ATTRIBUTES or not dot:
        known = {*FIELDS, *scope.attributes}
        raise refusal(node.column, f"there is no field {shown(node.name)}{nearest(node.name, known)}")
    _expect_declared(name, node.column, scope)
    return attributes.compared(name, node.comparator, node.value)


def _has_attribute(node: Comparison, scope: Scope) -> Condition:
    if node.comparator is not Comparator.HAS or node.value.has_wildcard:
        raise refusal(node.column, "name an attribute: attributes.NAME = VALUE, or attributes:NAME")
    _expect_declared(node.value.text, node.value.column, scope)
    return attributes.present(node.value.text)


def _expect_declared(name: str, column: int, scope: Scope) -> None:
    if name not in scope.attributes:
        hint = nearest(name, scope.attributes)
        raise refusal(column, f"no template declares an attribute {shown(name)}{hint}")
