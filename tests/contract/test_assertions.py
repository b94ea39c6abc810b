"""Every test says in its own body what must hold: one that calls what runs, or what looks, and ends, shows nothing."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.source import ROOT

FILES = sorted((ROOT / "tests").rglob("test_*.py"))

Test = ast.FunctionDef | ast.AsyncFunctionDef


def cases(source: str) -> Iterator[Test]:
    """The test functions of a file, those of classes too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Test) and node.name.startswith("test_"):
            yield node


def body(node: ast.AST) -> Iterator[ast.AST]:
    """Everything in a function but what stands in a function, class or lambda of its own."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Test | ast.Lambda | ast.ClassDef):
            yield child
            yield from body(child)


def says_something(node: ast.AST) -> bool:
    """Whether it is an assertion on anything but a constant, or expects an error."""
    match node:
        case ast.Assert(test=ast.Constant() | ast.Tuple()):
            return False
        case ast.Assert() | ast.Attribute(value=ast.Name("pytest"), attr="raises"):
            return True
    return False


def silent(source: str) -> list[str]:
    """The tests that assert nothing in their own body."""
    return [test.name for test in cases(source) if not any(map(says_something, body(test)))]


def test_there_are_tests_to_look_at() -> None:
    assert sum(len(list(cases(path.read_text("utf-8")))) for path in FILES) > 1000


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_asserts_in_its_own_body(path: Path) -> None:
    assert silent(path.read_text("utf-8")) == [], "say in the test what must hold, beside what its helpers check"


@pytest.mark.parametrize(
    "statement, is_silent",
    [
        ("assert found", False),
        ("for each in found:\n        assert each", False),
        ("with pytest.raises(ValueError):\n        look()", False),
        ("check_history(found)", True),
        ("assert True", True),
        ("def look():\n        assert found\n    look()", True),
    ],
)
def test_only_what_the_test_itself_asserts_counts(statement: str, is_silent: bool) -> None:
    assert silent(f"async def test_it():\n    {statement}\n") == ["test_it"] * is_silent
