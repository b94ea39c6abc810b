"""What a request selects: flows that its caller may see and that pass its filters. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, true

from handrail.index.v1.index_service_pb2 import Scope
from handrail.visibility.filter import Scope as Names
from handrail.visibility.filter import check, parse, text_of, where
from handrail.visibility.filter.syntax import And, Node
from handrail.visibility.index import schema


def tree_of(filters: Sequence[str]) -> Node:
    """Parses filters, all of which must hold. Raises BAD_FILTER."""
    trees = [parse(each) for each in filters]
    parts = [part for tree in trees for part in (tree.items if isinstance(tree, And) else (tree,))]
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def canonical(tree: Node) -> str:
    """Returns the text by which equal filters are known."""
    return text_of(tree)


def selected(tree: Node, scope: Scope, now: datetime) -> ColumnElement[bool]:
    """Returns the condition for a statement that reads `schema.flow`. Raises BAD_FILTER."""
    names = Names(now=now, attributes=frozenset(scope.attributes), flow_types=frozenset(scope.flow_types))
    return and_(_visible(scope), where(check(tree, names)))


def _visible(scope: Scope) -> ColumnElement[bool]:
    """The flows that the caller may see. It is part of the statement, so no page and no count shows others."""
    return true() if scope.every_type else schema.flow.c.flow_type.in_(sorted(scope.flow_types))
