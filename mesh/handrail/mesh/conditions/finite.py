"""Conditions fail closed on numbers: an expression that reads a number that is not finite can't be evaluated.

In the engine all comparisons with NaN are false, and doubles overflow to infinity silently. So each double in an
expression is wrapped in a check: fields, list items and results of arithmetic. The checked tree has a type for each
node, so nested, repeated and map fields are covered as well. Logical operators short-circuit as usual in CEL:
`false && x` is false for any x.

This module also rewrites `sum` over a list as a loop, since the engine has no such function.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from google.protobuf.message import Message

from handrail.mesh.conditions.syntax import ANY, DOUBLE, Expr, Tree, Type

CHECK = "@finite"
"""The function that checks a number. Expressions can't name it."""

SUM = "sum"
"""`list.sum()` of ints, uints, doubles or durations. The sum of an empty list is zero."""

BOUND = "@n"
"""How the names begin that checked values are bound to."""

_EQUALITY = frozenset({"_==_", "_!=_", "@in"})
_DURATION = 3
_ZEROS = {2: "int64_value", 3: "uint64_value", DOUBLE: "double_value"}
"""The zero constant by `Type.primitive`."""


class NumberRead(NamedTuple):
    """A field with doubles that an expression reads: a single, repeated, map or wrapped field."""

    message_type: str
    field: str


def numbers_read(tree: Tree) -> Iterator[NumberRead]:
    """The fields with doubles that an expression reads."""
    for node in tree.nodes():
        kind = tree.types.get(node.id)
        if node.HasField("select") and not node.select.test_only and kind is not None and _holds_double(kind):
            operand = tree.types.get(node.select.operand.id)
            if operand is not None and operand.message:
                yield NumberRead(operand.message, node.select.field)


def guard(tree: Tree) -> bool:
    """Wraps each double in a check, and rewrites sums as loops. Returns whether anything changed."""
    changed = False
    for node in list(tree.nodes()):
        kind = tree.types.get(node.id)
        if node.HasField("call") and node.call.function == SUM and kind is not None:
            _add_up(tree, node, kind)
        elif kind is not None and _is_number(kind) and not _is_finite_literal(node):
            _check(tree, node)
        elif node.HasField("call") and node.call.function in _EQUALITY:
            whole = [arg for arg in node.call.args if _is_whole(tree, arg)]
            for arg in whole:
                _check(tree, arg)
            changed = changed or bool(whole)
            continue
        else:
            continue
        changed = True
    return changed


def check(value: object, label: str) -> bool:
    """Returns True. Raises `ValueError` if a value is or holds a number that is not finite; `label` names the value."""
    if not _is_finite(value):
        raise ValueError(
            f"{label} is {value}" if isinstance(value, float) else f"{label} holds a number that is not finite"
        )
    return True


def _check(tree: Tree, node: Expr) -> None:
    """Rewrites a node so that its value is bound to a name, checked, and returned."""
    label = _label(node)
    value = tree.replace(node)
    name = f"{BOUND}{node.id}"
    loop = node.comprehension
    loop.iter_var, loop.accu_var = "#unused", name
    tree.new(loop.iter_range).list.SetInParent()
    loop.accu_init.CopyFrom(value)
    tree.new(loop.loop_condition).constant.bool_value = False
    tree.new(loop.loop_step).ident.name = name
    chosen = tree.new(loop.result).call
    chosen.function = "_?_:_"
    checked = tree.new(chosen.args.add()).call
    checked.function = CHECK
    tree.new(checked.args.add()).ident.name = name
    tree.new(checked.args.add()).constant.string_value = label
    tree.new(chosen.args.add()).ident.name = name
    tree.new(chosen.args.add()).ident.name = name


def _add_up(tree: Tree, node: Expr, kind: Type) -> None:
    call = tree.replace(node).call
    loop = node.comprehension
    loop.iter_var, loop.accu_var = f"@i{node.id}", f"@s{node.id}"
    loop.iter_range.CopyFrom(call.target)
    zero = tree.new(loop.accu_init)
    if kind.well_known == _DURATION:
        zero.call.function = "duration"
        tree.new(zero.call.args.add()).constant.string_value = "0s"
    else:
        setattr(zero.constant, _ZEROS.get(kind.primitive, "int64_value"), 0)
    tree.new(loop.loop_condition).constant.bool_value = True
    step = tree.new(loop.loop_step)
    step.call.function = "_+_"
    tree.new(step.call.args.add()).ident.name = loop.accu_var
    tree.new(step.call.args.add()).ident.name = loop.iter_var
    if kind.primitive not in (2, 3) and kind.well_known != _DURATION:
        _check(tree, step)
    tree.new(loop.result).ident.name = loop.accu_var


def _label(node: Expr) -> str:
    """A name of the value for people: the path of a field, or its origin."""
    if node.HasField("ident"):
        return "an item" if node.ident.name.startswith("@") else node.ident.name
    if node.HasField("select"):
        return f"{_label(node.select.operand)}.{node.select.field}"
    if node.HasField("call") and node.call.function == "_[_]":
        return f"an item of {_label(node.call.args[0])}"
    if node.HasField("comprehension") and node.comprehension.accu_var.startswith(BOUND):
        return _label(node.comprehension.accu_init)
    return "a result"


def _is_number(kind: Type) -> bool:
    """Whether the type is a double, or may be one at run time."""
    return DOUBLE in (kind.primitive, kind.wrapper) or kind.HasField("dyn") or kind.well_known == ANY


def _holds_double(kind: Type) -> bool:
    if kind.HasField("list"):
        return _holds_double(kind.list.element)
    if kind.HasField("map"):
        return _holds_double(kind.map.value)
    return DOUBLE in (kind.primitive, kind.wrapper)


def _is_whole(tree: Tree, node: Expr) -> bool:
    """Whether the node is a message, or a list or map that may hold doubles: values that are compared as a whole."""
    kind = tree.types.get(node.id)
    while kind is not None and (kind.HasField("list") or kind.HasField("map")):
        kind = kind.list.element if kind.HasField("list") else kind.map.value
        if _is_number(kind):
            return True
    return kind is not None and bool(kind.message)


def _is_finite_literal(node: Expr) -> bool:
    return node.HasField("constant") and math.isfinite(node.constant.double_value)


def _is_finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, Message):
        return all(_is_finite(held) for _, held in value.ListFields())
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return all(map(_is_finite, value))
    return True
