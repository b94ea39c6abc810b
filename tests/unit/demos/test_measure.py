"""The research demo measures Python as people count it, and takes out what is dead without breaking anything."""

import ast
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos.research.analysis import measured
from demos.research.expected import expect
from demos.research.imports import Dead, dead_imports, without
from demos.research.measure import decisions, functions, parse
from demos.research.source import MAX_BYTES, SourceError, decode, python_files, read
from tests.contract.source import ROOT

SOURCES = sorted((ROOT / "mesh").rglob("*.py"))


def dead(text: str, *, is_package: bool = False) -> list[Dead]:
    return dead_imports(ast.parse(text), text, is_package=is_package)


def test_a_function_is_measured_without_those_inside_it() -> None:
    text = """
class Shop:
    def sell(self, items):
        for item in items:
            if item and item.price or item.gift:
                yield item
        def inner():
            return [x for x in items if x] if items else None

async def close():
    try:
        pass
    except OSError:
        pass
"""
    found = {each.name: (each.line, each.lines, each.complexity) for each in functions(ast.parse(text))}
    assert found == {"Shop.sell": (3, 6, 5), "Shop.sell.inner": (7, 2, 4), "close": (10, 5, 2)}


def test_every_case_is_a_way_through() -> None:
    text = "def f(x):\n    match x:\n        case 1 if x:\n            pass\n        case _:\n            pass\n"
    assert [each.complexity for each in functions(ast.parse(text))] == [4]
    assert decisions(ast.parse(text)) == 1


@pytest.mark.parametrize(
    "text, names",
    [
        ("import os\nimport sys\nprint(sys.path)\n", ["os"]),
        ("import os.path\nos.sep\n", []),
        ("from a import b as c, d\nd()\n", ["c"]),
        ("from a import b\n__all__ = ['b']\n", []),
        ("from a import B\ndef f(x: 'list[B]') -> None: ...\n", []),
        ("from __future__ import annotations\n", []),
        ("import a as a\nfrom b import *\nimport c  # noqa: F401\n", []),
        ("def f():\n    import a\n", ["a"]),
        ("import a\na = 1\n", ["a"]),
        ("if TYPE:\n    from a import B\nx: B\n", []),
    ],
)
def test_an_import_is_dead_if_nothing_uses_it(text: str, names: list[str]) -> None:
    assert [each.name for each in dead(text)] == names


def test_what_a_package_imports_is_for_others() -> None:
    assert dead("from a import b\n", is_package=True) == []


@pytest.mark.parametrize(
    "before, after",
    [
        ("import os\nimport sys\nsys\n", "import sys\nsys\n"),
        ("from a import (\n    b,\n    c,\n)\nc\n", "from a import c\nc\n"),
        ("try:\n    import a\nexcept E:\n    pass\n", "try:\n    pass\nexcept E:\n    pass\n"),
        ("from ..a import b as c, d as e\ne\n", "from ..a import d as e\ne\n"),
        ("import a; b = 1\n", "import a; b = 1\n"),
        ("import a", ""),
        ("ä = 1; import a  # ü\n", "ä = 1; import a  # ü\n"),
    ],
)
def test_dead_imports_are_taken_out_and_nothing_else(before: str, after: str) -> None:
    assert without(before, dead(before)) == after


NAMES = st.sampled_from(["a", "b", "os", "sys"])
LINES = st.one_of(
    st.builds("import {}".format, NAMES),
    st.builds("from {} import {}, {} as {}".format, NAMES, NAMES, NAMES, NAMES),
    st.builds("if {}:\n    import {}".format, NAMES, NAMES),
    st.builds("def f():\n    from {} import (\n        {},\n    )".format, NAMES, NAMES),
    st.builds("{} = {}".format, NAMES, NAMES),
)


@given(st.lists(LINES, max_size=8).map("\n".join))
def test_what_is_left_is_python_and_has_no_dead_import(text: str) -> None:
    left = without(text, dead(text))
    assert dead(left) == []
    assert ast.unparse(ast.parse(left)).count("import") <= ast.unparse(ast.parse(text)).count("import")


@given(st.text())
@settings(max_examples=200)
def test_no_text_does_worse_than_be_refused(text: str) -> None:
    try:
        tree = parse(text, "x.py")
    except SourceError:
        return
    assert all(each.complexity > 0 for each in functions(tree))
    assert decisions(tree) >= 0
    assert all(each.name in text for each in dead_imports(tree, text, is_package=False))


def test_two_ways_of_counting_agree_on_this_project() -> None:
    paths = [path.relative_to(ROOT).as_posix() for path in SOURCES]
    files = [measured(ROOT, path) for path in paths]
    expected = expect(ROOT, paths)
    sums = [sum(getattr(each, what) for each in files) for what in ("lines", "functions", "decisions")]
    assert sums == [expected.lines, expected.functions, expected.decisions]
    assert not any(each.dead_imports for each in files)


def test_only_source_below_the_folder_is_found(tmp_path: Path) -> None:
    outside = tmp_path / "outside.py"
    outside.write_text("")
    folder = tmp_path / "in"
    for path in ("b.py", "a/c.py", ".git/d.py", "build/e.py", "f.txt", "__pycache__/g.py"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("")
    (folder / "link.py").symlink_to(outside)
    (folder / "up").symlink_to(tmp_path)
    assert python_files(folder) == ["a/c.py", "b.py"]
    with pytest.raises(SourceError, match="is not a folder"):
        python_files(outside)


@pytest.mark.parametrize(
    "path, why", [("../outside.py", "leads out"), ("gone.py", "No such file"), ("big.py", "bytes")]
)
def test_what_can_not_be_read_says_why(path: str, why: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "big.py").write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(SourceError, match=why):
        read(folder, path)
    with pytest.raises(SourceError, match="not UTF-8"):
        decode(b"\xff", path)
