"""`handrail agent run MODULE:AGENT`: a module that can't be imported is said in one line, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from handrail.agents import Agent
from handrail.agents.errors import DeclarationError
from handrail.agents.runner import find_agent


def test_an_agent_is_found_in_its_module() -> None:
    assert isinstance(find_agent("demos.payments.ledger:agent"), Agent)


@pytest.mark.parametrize(
    "name, code, complaint",
    [
        ("no_syntax", "def f(:\n", "SyntaxError: invalid syntax (no_syntax.py, line 1)"),
        ("no_import", "\nimport nowhere_to_be_found\n", "ModuleNotFoundError: No module named 'nowhere_to_be_found' ("),
        ("no_luck", "\n\n1 / 0\n", "ZeroDivisionError: division by zero ("),
    ],
)
def test_a_module_that_breaks_is_named_with_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str, complaint: str
) -> None:
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeclarationError) as refused:
        find_agent(f"{name}:agent")
    [problem] = refused.value.problems
    assert problem.startswith(f"module {name} can't be imported: {complaint}")
    assert f"line {code.count(chr(10))}" in problem


@pytest.mark.parametrize("path", ["ledger", ":agent", "nowhere_to_be_found:agent", "demos.payments.ledger:nothing"])
def test_a_path_that_names_no_agent_is_refused(path: str) -> None:
    with pytest.raises(DeclarationError):
        find_agent(path)
