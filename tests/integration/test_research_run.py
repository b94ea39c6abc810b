"""The research demo as its command runs it, over a small tree: story, table, reports, and its own audit."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.dev import ROOT, environment

SOURCE = """import os
import sys


def ways(a, b):
    if a and b:
        return sys.path
    return [x for x in a if x]
"""


def research(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "demos.research", *map(str, arguments)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


@pytest.mark.timeout(180)
def test_every_folder_gets_its_report_and_one_agent_is_killed_on_the_way(tmp_path: Path) -> None:
    tree, kept = tmp_path / "tree", tmp_path / "kept"
    for name in ("left", "right", "gen", ".hidden"):
        (tree / name).mkdir(parents=True)
        for number in range(3):
            (tree / name / f"file{number}.py").write_text(SOURCE)
    (tree / "right" / "broken.py").write_text("def (:\n")
    run = research("--tree", tree, "--keep", kept)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "analysis is back as process" in run.stdout
    rows = re.findall(r"^  (left|right) +(\d+) +(\d+) +(\d+) .* (\w+): (yes|no) +(\S+)$", run.stdout, re.MULTILINE)
    assert [row[:4] for row in rows] == [("left", "3", "24", "3"), ("right", "4", "24", "3")]
    assert sorted(row[5] for row in rows) == ["no", "yes"]
    for name, *_, answer, report in rows:
        figures = json.loads((kept / "reports" / report).with_suffix(".json").read_text())
        assert (figures["name"], len(figures["remove"])) == (name, 3)
        assert (kept / "reports" / report).with_suffix(".patch").exists() == (answer == "yes")
    again = research("--tree", tree, "--keep", kept)
    assert (again.returncode, "has files of another run" in again.stderr) == (1, True)


def test_a_tree_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    run = research("--tree", tmp_path / "nothing")
    assert (run.returncode, run.stderr) == (1, f"demo: {tmp_path / 'nothing'} is not a folder\n")
