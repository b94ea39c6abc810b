"""Prepares the cost of an expression: it reads the tree once, so that each evaluation only looks at sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from handrail.mesh.conditions.call_costs import CALLS, UNKNOWN, Charge, joined_texts
from handrail.mesh.conditions.finite import BOUND
from handrail.mesh.conditions.sizes import NOTHING, SINGLE, Many, Size, Text, any_of, copied
from handrail.mesh.conditions.syntax import BYTES, STRING, Comprehension, Expr, Tree, Type

_NODE = 10
"""A node: 20 to 60 ns."""

_ROUND = 500
"""A round of a loop. It takes a tenth of that, but the engine stops after 10,000 rounds, and must never decide."""

_SIZE, _JOIN = "size", "_+_"

_COPIED_NODE = 25
"""A value that is copied into a message: 100 to 250 ns."""

_ITEM, _ENTRY = 20, 150
"""An item of a list that the expression creates; an entry of such a map or message."""


@dataclass(slots=True)
class Run:
    """One pass over an expression: the units so far, and access to the sizes of the names in scope."""

    units: int
    names: dict[str, Callable[[], Size]]


Visit = Callable[[Run, int], Size]
"""Charges what depends on sizes for this many evaluations of a node, and returns the size of its value."""


class Part(NamedTuple):
    """A node and its children: the units that depend on no size, how to visit it, and whether a visit is free."""

    units: int
    visit: Visit
    is_free: bool


def _single(run: Run, times: int) -> Size:
    return SINGLE


def _a_single() -> Size:
    return SINGLE


class Reader:
    """Prepares the parts of a tree."""

    def __init__(self, tree: Tree) -> None:
        self._types = tree.types
        self._names = tree.names
        self._singles: set[str] = set()

    def part(self, node: Expr) -> Part:
        """The part of a node."""
        if node.HasField("ident") or (node.HasField("select") and node.id in self._names):
            return _name(self._names.get(node.id) or node.ident.name)
        if node.HasField("constant"):
            return _constant(node)
        if node.HasField("select"):
            return self._select(node)
        if node.HasField("call"):
            return self._call(node)
        if node.HasField("list"):
            items = [self.part(item) for item in node.list.elements]
            return _made(items, [], _ITEM * len(items) + _NODE)
        if node.HasField("struct"):
            keys = [self.part(entry.key) for entry in node.struct.entries if entry.HasField("key")]
            values = [self.part(entry.value) for entry in node.struct.entries]
            return _made(values, keys, _ENTRY * len(values) + _NODE, copies=not keys)
        return self._loop(node.comprehension)

    def _is_single(self, node: Expr) -> bool:
        return _is_single(self._types.get(node.id)) or (node.HasField("ident") and node.ident.name in self._singles)

    def _select(self, node: Expr) -> Part:
        units, visit, is_free = self.part(node.select.operand)
        name, kind = node.select.field, self._types.get(node.id)
        if node.select.test_only or _is_single(kind):
            return Part(units + _NODE, _only(visit, is_free), is_free)
        if _is_whole(kind):
            return Part(units + _NODE, lambda run, times: visit(run, times).field(name), is_free)

        def read(run: Run, times: int) -> Size:
            size = visit(run, times).field(name)
            run.units += times * (size.length >> 1)  # a text is copied
            return size

        return Part(units + _NODE, read, False)

    def _call(self, node: Expr) -> Part:
        call = node.call
        nodes = [*([call.target] if call.HasField("target") else ()), *call.args]
        parts = [self.part(each) for each in nodes]
        units = sum(part.units for part in parts) + _NODE
        known = CALLS.get(call.function, UNKNOWN)
        units += known.units
        is_free = all(part.is_free for part in parts)
        depends = not all(self._is_single(each) for each in nodes)
        charge: Charge | None = known.charge if depends else None
        if call.function == _SIZE and _is_collection(self._types.get(nodes[0].id)):
            charge = None
        is_single = known.result is None or self._is_single(node)
        if charge is None and is_single:
            visits = [part.visit for part in parts if not part.is_free]
            return Part(units, _all(visits), is_free)
        result = known.result
        if call.function == _JOIN and _is_text(self._types.get(node.id)):
            result = joined_texts

        def visit(run: Run, times: int) -> Size:
            sizes = [part.visit(run, times) for part in parts]
            if charge is not None:
                run.units += times * charge(sizes)
            return SINGLE if result is None or is_single else result(sizes)

        return Part(units, visit, is_free and charge is None)

    def _loop(self, loop: Comprehension) -> Part:
        collected, item = loop.accu_var, loop.iter_var
        start = self.part(loop.accu_init)
        if collected.startswith(BOUND) and self._is_single(loop.accu_init):
            self._singles.add(collected)
        result = self.part(loop.result)
        if collected.startswith(BOUND):  # a name for a value: no rounds
            if start.is_free and self._is_single(loop.accu_init):
                return Part(start.units + result.units, _single, True)

            def bind(run: Run, times: int) -> Size:
                value = start.visit(run, times)
                return _with(run, times, {collected: lambda: value}, result.visit)

            return Part(start.units + result.units, bind, start.is_free and result.is_free)
        over, again, step = self.part(loop.iter_range), self.part(loop.loop_condition), self.part(loop.loop_step)
        in_round = _ROUND + again.units + step.units
        collects = loop.accu_init.HasField("list")

        def once(run: Run, times: int) -> Size:
            again.visit(run, times)
            return step.visit(run, times)

        def visit(run: Run, times: int) -> Size:
            running = over.visit(run, times)
            rounds, value = running.length, start.visit(run, times)
            run.units += times * rounds * (in_round + copied(running.key))
            if rounds:
                # In the average round a list that is collected has half of its items.
                half = Many((rounds + 1) // 2, NOTHING) if collects else value
                names = {item: lambda: running.key, collected: lambda: half}
                after = _with(run, times * rounds, names, once)
                if collects:
                    value = Many((after.length - half.length) * rounds, after.item)
            return _with(run, times, {collected: lambda: value}, result.visit)

        return Part(over.units + start.units + result.units, visit, False)


def _with(run: Run, times: int, names: Mapping[str, Callable[[], Size]], visit: Visit) -> Size:
    """Visits a part with some names in scope."""
    before = {name: run.names.get(name) for name in names}
    run.names.update(names)
    try:
        return visit(run, times)
    finally:
        for name, size in before.items():
            if size is None:
                del run.names[name]
            else:
                run.names[name] = size


def _name(name: str) -> Part:
    return Part(_NODE, lambda run, times: run.names.get(name, _a_single)(), True)


def _constant(node: Expr) -> Part:
    constant = node.constant
    if constant.HasField("string_value"):
        size: Size = Text(len(constant.string_value), (constant.string_value,))
    elif constant.HasField("bytes_value"):
        size = Text(len(constant.bytes_value))
    else:
        size = SINGLE
    return Part(_NODE, lambda run, times: size, True)


def _made(values: Sequence[Part], keys: Sequence[Part], units: int, *, copies: bool = False) -> Part:
    """A list, map or message that the expression makes. A message copies its values."""
    parts = [*keys, *values]

    def visit(run: Run, times: int) -> Size:
        sizes = [part.visit(run, times) for part in values]
        if copies:
            run.units += times * _COPIED_NODE * sum(size.nodes for size in sizes)
        held = any_of(sizes)
        named = any_of([part.visit(run, times) for part in keys]) if keys else None
        return Many(len(values), held, named)

    return Part(units + sum(part.units for part in parts), visit, not copies and all(part.is_free for part in parts))


def _only(visit: Visit, is_free: bool) -> Visit:
    return _single if is_free else _all([visit])


def _all(visits: Sequence[Visit]) -> Visit:
    """Visits parts to charge their cost; the value itself is single."""
    if not visits:
        return _single

    def visit(run: Run, times: int) -> Size:
        for each in visits:
            each(run, times)
        return SINGLE

    return visit


def _is_single(kind: Type | None) -> bool:
    """Whether all values of the type have the same size."""
    if kind is None:
        return False
    if kind.HasField("primitive") or kind.HasField("wrapper"):
        return (kind.primitive or kind.wrapper) not in (STRING, BYTES)
    return kind.HasField("null") or kind.well_known in (2, 3)


def _is_collection(kind: Type | None) -> bool:
    """Whether the type is a list or a map."""
    return kind is not None and (kind.HasField("list") or kind.HasField("map"))


def _is_text(kind: Type | None) -> bool:
    """Whether the type is a text or bytes, wrapped or not."""
    return kind is not None and (kind.primitive or kind.wrapper) in (STRING, BYTES)


def _is_whole(kind: Type | None) -> bool:
    """Whether the type is a message, a list or a map: the engine hands on a reference."""
    return kind is not None and (kind.HasField("list") or kind.HasField("map") or bool(kind.message))
