"""What a request selects: flows that its caller may see and that pass its filters. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement

from handrail.index.v1.index_service_pb2 import Scope
from handrail.visibility.filter import Condition, check, parse, text_of, where
from handrail.visibility.filter import Scope as Names
from handrail.visibility.filter.condition import All, Either, OfFlow, equal
from handrail.visibility.filter.syntax import And, Node


def tree_of(filters: Sequence[str]) -> Node:
    """Parses filters, all of which must hold. Raises BAD_FILTER."""
    trees = [parse(each) for each in filters]
    parts = [part for tree in trees for part in (tree.items if isinstance(tree, And) else (tree,))]
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def canonical(tree: Node) -> str:
    """Returns the text by which equal filters are known."""
    return text_of(tree)


def condition_of(tree: Node, scope: Scope, now: datetime) -> Condition:
    """Returns the condition for flows that the caller may see and that pass. Raises BAD_FILTER."""
    names = Names(now=now, attributes=frozenset(scope.attributes), flow_types=frozenset(scope.flow_types))
    return All((_visible(scope), check(tree, names)))


def selected(tree: Node, scope: Scope, now: datetime) -> ColumnElement[bool]:
    """Returns the same as a condition for a statement that reads `schema.flow`. Raises BAD_FILTER."""
    return where(condition_of(tree, scope, now))


def _visible(scope: Scope) -> Condition:
    """The flows that the caller may see. It is part of the statement, so no page and no count shows others."""
    if scope.every_type:
        return All(())
    return Either(tuple(OfFlow("flow_type", equal(each)) for each in sorted(scope.flow_types)))
