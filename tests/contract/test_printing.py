"""Whatever is printed or logged goes through what shows control characters and does not send them."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.contract.source import ROOT, import_roots, modules

CLEANS = {"clean", "clean_lines", "json_text", "to_text", "reference"}
"""What makes a text printable, and what has no text from elsewhere in it."""

OURS = {
    "cli/handrail/cli/output.py": "the place that cleans",
    "cli/handrail/cli/commands/completion.py": "a script of argcomplete's",
    "cli/handrail/cli/commands/console.py": "the address of the caller's",
    "cli/handrail/cli/commands/contracts_generate.py": "a count, and a path of the caller's",
    "cli/handrail/cli/commands/coordinator.py": "the address of the caller's",
    "cli/handrail/cli/commands/dev.py": "addresses and names of templates that were checked",
    "cli/handrail/cli/commands/nats_permissions.py": "JSON in ASCII, and names that were checked",
    "cli/handrail/cli/commands/new.py": "paths of the caller's",
    "cli/handrail/cli/commands/template_graph.py": "charts clean their labels",
    "cli/handrail/cli/commands/template_migrate.py": "numbers",
    "cli/handrail/cli/commands/template_replay.py": "numbers, and a bar that moves the cursor",
    "cli/handrail/cli/commands/token.py": "a token in base64",
    "agents/demos/stage/command.py": "a path of the caller's",
}


def _calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name in (getattr(node.func, "id", ""), getattr(node.func, "attr", "")):
            yield node


def _cleans(call: ast.Call) -> bool:
    return not call.args or all(
        isinstance(argument, ast.Constant) or any(getattr(node, "id", "") in CLEANS for node in ast.walk(argument))
        for argument in call.args
    )


@pytest.mark.parametrize("root", [root for root in import_roots() if not root.startswith("gen")])
def test_what_is_printed_is_cleaned(root: str) -> None:
    raw = [
        f"{path}:{call.lineno}"
        for path in (module.path.relative_to(ROOT) for module in modules(root))
        if str(path) not in OURS
        for call in _calls(ast.parse((ROOT / path).read_text()), "print")
        if not _cleans(call)
    ]
    assert raw == []


@pytest.mark.parametrize("root", [root for root in import_roots() if not root.startswith("gen")])
def test_logging_is_configured_in_one_place(root: str) -> None:
    places = [
        str(module.path.relative_to(ROOT))
        for module in modules(root)
        if any(_calls(ast.parse(module.path.read_text()), "basicConfig"))
    ]
    assert places == (["mesh/handrail/mesh/telemetry/logs.py"] if root == "mesh" else [])
