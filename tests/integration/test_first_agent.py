"""The wheel in an empty environment and an empty folder: `handrail new`, and docs/first-agent.md to its end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.source import ROOT
from tests.support import wheel as wheels

PAGE = (ROOT / "docs" / "first-agent.md").read_text()

pytestmark = pytest.mark.timeout(600)  # everything is installed anew


def blocks() -> dict[str, str]:
    """The page's fenced blocks by language; those of one language together."""
    found: dict[str, str] = {}
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        found[language] = found.get(language, "") + text
    return found


class Shell:
    """A folder, an environment of its own, and what the page's commands leave there."""

    def __init__(self, folder: Path, environment: Path) -> None:
        self.folder = folder
        # Nothing of this process's environment but what a shell needs: no path of this project.
        self.env = {
            "PATH": f"{environment / 'bin'}{os.pathsep}{os.defpath}",
            "HOME": str(folder),
            "VIRTUAL_ENV": str(environment),
            "LANG": "C.UTF-8",
        }

    def run(self, script: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run commands; those that fail end the test."""
        command = ["bash", "-eu", "-c", script]
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0 or not check, f"{script}\n{done.stdout}\n{done.stderr}"
        return done


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and the page's requirements, in the versions of the lock files."""
    folder = tmp_path_factory.mktemp("installed")
    programs = wheels.environment(folder / "environment")
    requirements = ROOT / "cli" / "handrail" / "cli" / "project" / "files" / "requirements.txt"
    wheels.install(programs, f"{wheels.build(folder)}[dev]", "--requirement", requirements)
    return programs.parent


@pytest.fixture(scope="module")
def project(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A new project, generated and checked, as the page has it up to its tests."""
    shell = Shell(tmp_path_factory.mktemp("home"), installed)
    assert blocks()["install"].splitlines() == [
        "python -m venv .venv",
        ". .venv/bin/activate",
        'python -m pip install "${HANDRAIL}[dev]"',
        "python -m pip install -r requirements.txt",
    ]
    where = shell.run("python -c 'import handrail.cli.main as m; print(m.__file__)'").stdout
    assert where.startswith(str(installed))
    shell.run(blocks()["new"])
    shell.folder = shell.folder / "loans"
    tested = shell.run(blocks()["test"]).stdout
    assert "1 checked: 0 errors, 0 warnings" in tested
    assert re.search(r"^\d+ passed", tested, re.MULTILINE)
    return shell


@pytest.fixture(scope="module")
def running(project: Shell) -> Iterator[Shell]:
    """The project with `handrail dev`, on free ports."""
    command = blocks()["dev"].split()
    ports = ["--port", "0", "--nats-port", "0", "--json", "--data", str(project.folder.parent / "data")]
    with (project.folder.parent / "errors").open("w") as errors:
        dev = subprocess.Popen(
            [*command, *ports],
            executable=str(Path(project.env["VIRTUAL_ENV"]) / "bin" / command[0]),
            cwd=project.folder,
            env=project.env,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert dev.stdout is not None
        try:
            line = dev.stdout.readline()
            assert line, (project.folder.parent / "errors").read_text()
            ready = json.loads(line)
            project.env |= {"ADDRESS": ready["address"], "TOKENS": str(Path(ready["token_files"]["olga"]).parent)}
            yield project
        finally:
            dev.send_signal(signal.SIGTERM)
            dev.communicate(timeout=60)


UNTIL_ASKED = "until handrail approval list | grep -q PENDING; do sleep 0.1; done"


def test_a_new_project_runs_as_the_page_says(running: Shell) -> None:
    page = blocks()
    assert list(page) == ["install", "new", "test", "dev", "flow", "large", "approve", "change", "back"]
    script = "\n".join([page["flow"], page["large"], UNTIL_ASKED, page["approve"], page["change"], page["back"]])
    said = running.run(script).stdout
    assert "Bought" in said
    assert said.count("COMPLETED") == 2, "the small one, and the large one once it was approved"
    assert "Gate large_sum asks one person of finance from 50000 on instead of 100000, so more often" in said
    assert "loans version 2 is active" in said
    assert "loans is rolled back from version 2 to 1" in said
    assert "finance sees too much" in said


def test_make_does_the_same(project: Shell) -> None:
    checked = project.run("make check").stdout
    for said in ("2 protos checked: no findings", "nobody is affected", "1 checked: 0 errors, 0 warnings"):
        assert said in checked
    assert re.search(r"^\d+ passed", project.run("make test").stdout, re.MULTILINE)


def test_another_name_does_as_well(installed: Path, tmp_path: Path) -> None:
    shell, name = Shell(tmp_path, installed), "my_shop"
    shell.run(f"handrail new {name}")
    shell.folder = tmp_path / name
    shell.run("handrail contracts generate proto --out .")
    shell.run(f"handrail template check --strict {name}/{name}.yaml --contracts {name}")
    assert re.search(r"^\d+ passed", shell.run("python -m pytest -q").stdout, re.MULTILINE)
