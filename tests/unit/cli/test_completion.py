"""A shell is told what could follow on a command line."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.dev import HANDRAIL, environment, handrail


def completions(line: str, tmp_path: Path) -> list[str]:
    """What the shell is told for a line with the cursor at its end."""
    out = tmp_path / "completions"
    asked = environment(
        _ARGCOMPLETE="1",
        _ARGCOMPLETE_IFS="\n",
        _ARGCOMPLETE_STDOUT_FILENAME=str(out),
        _ARGCOMPLETE_SUPPRESS_SPACE="1",
        COMP_LINE=line,
        COMP_POINT=str(len(line)),
        COMP_TYPE="9",
    )
    done = subprocess.run(HANDRAIL, env=asked, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("", "")
    return out.read_text().split("\n")


@pytest.mark.parametrize(
    "line, told",
    [
        ("handrail fl", ["flow"]),
        ("handrail flow re", ["retry", "resolve"]),
        ("handrail flow list --flow", ["--flow-type"]),
        ("handrail flow list --status WAIT", ["WAITING_APPROVAL"]),
        ("handrail completion ", ["bash", "zsh", "fish"]),
    ],
)
def test_what_could_follow_is_told(line: str, told: list[str], tmp_path: Path) -> None:
    assert set(told) <= set(completions(line, tmp_path))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_one(shell: str) -> None:
    script = handrail("completion", shell).stdout
    assert "handrail" in script
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_bash_completes_a_line(tmp_path: Path) -> None:
    (tmp_path / "handrail").write_text(f'#!/bin/sh\nexec {" ".join(HANDRAIL)} "$@"\n')
    (tmp_path / "handrail").chmod(0o755)
    asked = (
        'eval "$(handrail completion bash)"; '
        "COMP_WORDS=(handrail fl) COMP_CWORD=1 COMP_LINE='handrail fl' COMP_POINT=11 COMP_TYPE=9; "
        '_python_argcomplete handrail; echo "${COMPREPLY[@]}"'
    )
    env = environment(PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    done = subprocess.run(["bash", "-c", asked], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.split(), done.stderr) == (["flow"], "")
