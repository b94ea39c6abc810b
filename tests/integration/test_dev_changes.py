"""`handrail dev` while people write: it tells each step, and takes up what they change."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from handrail.cli.project.scaffold import write
from tests.support.dev import HANDRAIL, Dev, chargeback, environment, handrail, running_dev, wait_for


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The package of a new project."""
    write("shop", tmp_path / "project")
    project = tmp_path / "project"
    assert handrail("contracts", "generate", project / "proto", "--out", project).returncode == 0
    return project / "shop"


@pytest.fixture
def dev(shop: Path, tmp_path: Path) -> Iterator[Dev]:
    """Runs it."""
    with running_dev(tmp_path / "data", "--agents", "shop", env={"PYTHONPATH": str(shop.parent)}) as running:
        yield running


def test_what_is_changed_is_taken_up_and_what_is_broken_is_told_until_it_is_mended(
    dev: Dev, shop: Path, tmp_path: Path
) -> None:
    log = tmp_path / "data.err"

    def told(text: str) -> None:
        wait_for(lambda: text in log.read_text(), text)

    code = (shop / "assessor.py").read_text()
    (shop / "assessor.py").write_text(f"{code}\nx = (\n")
    told("assessor can't start, until a file of it changes: module shop.assessor can't be imported: SyntaxError")
    (shop / "assessor.py").write_text(code)
    flow = dev.text("olga", "flow", "start", "shop", "--data", json.dumps({"requestId": "r-1", "cents": "250000"}))
    wait_for(lambda: dev.status(flow.strip()) == "WAITING_APPROVAL", "the answer of the agent that was mended")

    template = (shop / "shop.yaml").read_text()
    (shop / "shop.yaml").write_text(template.replace("name: shop", "name: ["))
    told("the templates stay as they were")
    (shop / "shop.yaml").write_text(template.replace("version: 1", "version: 2"))
    told("new flows begin with shop version 2")
    assert [each["version"] for each in dev.json("vera", "template", "list")["templates"] if each.get("active")] == [2]


def test_each_step_is_one_line_and_an_agent_that_somebody_else_runs_is_not_started(tmp_path: Path) -> None:
    ports = ("--nats-port", "0", "--port", "0", "--console-port", "0")
    words = [*HANDRAIL, "dev", "--agents", "demos.payments", "--without", "enrichment", *ports]
    errors = tmp_path / "err"
    with (
        errors.open("w") as err,
        subprocess.Popen(
            words, env=environment(TMPDIR=str(tmp_path)), stdout=subprocess.PIPE, stderr=err, text=True
        ) as process,
    ):
        assert process.stdout is not None
        try:
            printed: list[str] = []
            for line in process.stdout:
                printed.append(line)
                if line.startswith("Ctrl-C"):
                    break
            told = "".join(printed)
            address, token = re.findall(r"HANDRAIL_ADDRESS=(\S+) HANDRAIL_TOKEN_FILE=(\S+)", told)[0]
            assert "without      enrichment" in told
            assert "agents       detection, refunds, ledger, notification" in told
            assert "handrail agent run demos.payments.enrichment:agent" in told
            env = {"HANDRAIL_ADDRESS": address, "HANDRAIL_TOKEN_FILE": token}
            begun = handrail("flow", "start", "refund", "--data", chargeback(20), "--key", "a\x1b[2Jb", env=env)
            assert begun.returncode == 0, begun.stderr
            line = process.stdout.readline()
            assert re.fullmatch(
                r"\d\d:\d\d:\d\d  refund/a\\x1b\[2Jb  begins: ChargebackReceived \(coordinator\)\n", line
            )
        finally:
            process.terminate()
            process.communicate(timeout=60)
    assert "INFO" not in errors.read_text().replace("INFO handrail.cli.dev", "")


def test_an_agent_that_is_not_there_can_not_be_left_out(tmp_path: Path) -> None:
    done = handrail("dev", "--data", tmp_path / "data", "--agents", "demos.payments", "--without", "legder")
    assert (done.returncode, 'there is no agent "legder"; did you mean ledger?' in done.stderr) == (1, True)
