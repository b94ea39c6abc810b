"""The wheel in an empty environment and an empty folder: `handrail new`, and the pages that begin with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.source import ROOT
from tests.support import wheel as wheels
from tests.support.newcomer import Shell, blocks

FIRST, WEBHOOK = blocks("first-agent.md"), blocks("webhook.md")

pytestmark = pytest.mark.timeout(600)  # everything is installed anew


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
    assert FIRST["install"].splitlines() == [
        "python -m venv .venv",
        ". .venv/bin/activate",
        'python -m pip install "${HANDRAIL}[dev]"',
        "python -m pip install -r requirements.txt",
    ]
    where = shell.run("python -c 'import handrail.cli.main as m; print(m.__file__)'").stdout
    assert where.startswith(str(installed))
    shell.run(FIRST["new"])
    shell.folder = shell.folder / "loans"
    tested = shell.run(FIRST["test"]).stdout
    assert "1 checked: 0 errors, 0 warnings" in tested
    assert re.search(r"^\d+ passed", tested, re.MULTILINE)
    return shell


@pytest.fixture(scope="module")
def running(project: Shell) -> Iterator[Shell]:
    """The project with `handrail dev`, on free ports."""
    with project.installation(FIRST["dev"]):
        yield project


UNTIL_ASKED = "until handrail approval list | grep -q PENDING; do sleep 0.1; done"


def test_a_new_project_runs_as_the_page_says(running: Shell) -> None:
    assert list(FIRST) == ["install", "new", "test", "dev", "flow", "large", "approve", "change", "back"]
    script = "\n".join([FIRST["flow"], FIRST["large"], UNTIL_ASKED, FIRST["approve"], FIRST["change"], FIRST["back"]])
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


UNTIL_IT_WAITS = 'until handrail flow show "$FLOW" | grep "the outcome of step deliver"; do sleep 0.1; done'


def test_a_webhook_answers_a_step_as_the_page_says(installed: Path, tmp_path: Path) -> None:
    page = WEBHOOK
    assert list(page) == [
        *("message", "template", "tests", "webhook", "dev", "token", "serve", "flow", "call", "end"),
    ]
    shell = Shell(tmp_path, installed)
    shell.run(FIRST["new"])
    shell.folder = tmp_path / "loans"
    tested = shell.run("\n".join(page[each] for each in ("message", "template", "tests", "webhook"))).stdout
    assert "2 passed" in tested
    assert "no findings" in tested
    assert "1 checked: 0 errors, 0 warnings" in tested
    with shell.installation(page["dev"]):
        shell.run(page["token"])
        shell.env |= {"HANDRAIL_ADDRESS": shell.env["ADDRESS"], "PORT": "0"}
        with shell.running(page["serve"]) as line:
            shell.env["PORT"] = line.split()[-1]
            said = shell.run("\n".join([page["flow"], UNTIL_IT_WAITS, page["call"], page["end"]])).stdout
        data = tmp_path / "data"
        log = (data / "logs" / "coordinator.log").read_text()
    assert "through the API" in said
    assert re.findall(r"^\d{3}$", said, re.MULTILINE) == ["401", "200", "200", "409"]
    assert "COMPLETED" in said
    assert "loans.v1.Delivered" in said
    assert not (data / "credentials" / "carrier").exists(), "the carrier is no user of the broker"
    assert "durable agent-buyer" in log
    assert "agent-carrier" not in log, "it has no durable, and nobody misses it"
    assert "QUARANTINE_carrier" not in log
