"""The measures of a Python file: size, complexity, long functions. Pure."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from demos.research.source import SourceError

LONG = 60
"""A function with more lines is long."""

COMPLEX = 10
"""A function with a higher cyclomatic complexity is complex: McCabe's own limit."""

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class MeasuredFunction:
    """A function: `name` includes the names of the classes and functions around it."""

    name: str
    line: int
    lines: int
    complexity: int

    @property
    def is_long(self) -> bool:
        """Whether it has too many lines."""
        return self.lines > LONG

    @property
    def stands_out(self) -> bool:
        """Whether it is long or complex."""
        return self.is_long or self.complexity > COMPLEX


def parse(text: str, path: str) -> ast.Module:
    """The syntax tree of a file. Raises SourceError if this interpreter can't parse it."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise SourceError(f"{path}{line}: {error.msg if isinstance(error, SyntaxError) else error}") from None


def functions(tree: ast.AST, around: str = "") -> Iterator[MeasuredFunction]:
    """Every function of a tree, including nested ones, each measured without those inside it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            name = around + node.name
            if not isinstance(node, ast.ClassDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield MeasuredFunction(name, node.lineno, lines, 1 + sum(_weights(node)))
            yield from functions(node, f"{name}.")
        else:
            yield from functions(node, around)


def decisions(tree: ast.AST) -> int:
    """The number of decisions in a file: if, for, while, except, and, or; not those inside f-strings."""
    total = 0
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, ast.JoinedStr):
            total += _weight(node, cases=0)
            waiting += ast.iter_child_nodes(node)
    return total


def _weights(function: ast.AST) -> Iterator[int]:
    """The decisions in a function, without those of nested functions."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, _FUNCTIONS):
            yield _weight(node, cases=1)
            yield from _weights(node)


def _weight(node: ast.AST, *, cases: int) -> int:
    match node:
        case ast.If() | ast.IfExp() | ast.For() | ast.AsyncFor() | ast.While() | ast.ExceptHandler():
            return 1
        case ast.BoolOp():
            return len(node.values) - 1
        case ast.comprehension():
            return 1 + len(node.ifs)
        case ast.match_case():
            return cases + (node.guard is not None)
        case _:
            return 0
