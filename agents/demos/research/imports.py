"""Dead imports: finds and removes names that are imported and never used. Pure."""

import ast
from collections.abc import Collection, Iterator
from typing import NamedTuple

_LONGEST_EXPRESSION = 200


class Dead(NamedTuple):
    """A name that a statement binds and nothing uses."""

    line: int
    name: str


def dead_imports(tree: ast.Module, text: str, *, is_package: bool) -> list[Dead]:
    """The names that imports bind and nothing in the file uses, in order.

    Careful rather than complete: a string that could be a type counts as a use, and so does `__all__`. Imports with
    `noqa`, `import x as x`, imports of a package's `__init__`, and `__future__` are never dead.
    """
    if is_package:
        return []
    used = set(_used(tree))
    lines = text.splitlines()
    dead = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and not _is_for_others(node, lines):
            dead += [
                Dead(node.lineno, bound)
                for alias in node.names
                if (bound := _bound(alias)) not in used and alias.name != "*" and alias.asname != alias.name
            ]
    return sorted(dead)


def without(text: str, dead: Collection[Dead]) -> str:
    """The text without these imports. A statement that shares its lines with others stays unchanged."""
    lines = text.splitlines(keepends=True)
    tree = ast.parse(text)
    alone = {id(body[0]) for body in _bodies(tree) if len(body) == 1}
    for node in sorted(_imports(tree), key=lambda node: -node.lineno):
        kept = [alias for alias in node.names if Dead(node.lineno, _bound(alias)) not in dead]
        if len(kept) == len(node.names) or not _has_its_lines(node, lines):
            continue
        indent = lines[node.lineno - 1][: node.col_offset]
        end = "\n" if lines[(node.end_lineno or node.lineno) - 1].endswith("\n") else ""
        statement = [f"{indent}{_written(node, kept)}{end}"] if kept else []
        if not kept and id(node) in alone:
            statement = [f"{indent}pass{end}"]
        lines[node.lineno - 1 : node.end_lineno] = statement
    return "".join(lines)


def _imports(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))


def _bodies(tree: ast.Module) -> Iterator[list[ast.stmt]]:
    """Every block of statements, except the module's, which may be empty."""
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            body = getattr(node, name, None)
            if isinstance(body, list) and body and node is not tree:
                yield body


def _written(node: ast.Import | ast.ImportFrom, kept: list[ast.alias]) -> str:
    names = ", ".join(f"{alias.name} as {alias.asname}" if alias.asname else alias.name for alias in kept)
    if isinstance(node, ast.Import):
        return f"import {names}"
    return f"from {'.' * node.level}{node.module or ''} import {names}"


def _has_its_lines(node: ast.stmt, lines: list[str]) -> bool:
    """Whether its lines contain only white space or a comment besides it."""
    last = lines[(node.end_lineno or node.lineno) - 1].encode()
    after = last[node.end_col_offset or 0 :].decode().strip()
    return not lines[node.lineno - 1][: node.col_offset].strip() and (not after or after.startswith("#"))


def _is_for_others(node: ast.Import | ast.ImportFrom, lines: list[str]) -> bool:
    written = lines[node.lineno - 1 : node.end_lineno]
    return any("noqa" in line for line in written) or getattr(node, "module", "") == "__future__"


def _bound(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


def _used(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _named_in(node.value)


def _named_in(text: str) -> Iterator[str]:
    """The names in a string that could be an annotation, or an entry of `__all__`."""
    if not text.strip() or len(text) > _LONGEST_EXPRESSION:
        return
    try:
        expression = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    yield from (node.id for node in ast.walk(expression) if isinstance(node, ast.Name))
