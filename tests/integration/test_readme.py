"""What README.md shows runs in a fresh clone: its agent, the test of it, `make dev`, commands, and grpcurl lines."""

import asyncio
import inspect
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.contract.source import ROOT
from tests.support import wheel as wheels
from tests.support.dev import environment

README = (ROOT / "README.md").read_text()

# The README's agent takes the place of the demo's own.
HOUSE = """
from demos.payments import AGENTS as DEMO, MESSAGES, TEMPLATES

AGENTS = {**DEMO, "enrichment": "my_agents:agent"}
"""

pytestmark = pytest.mark.timeout(300)  # everything is installed anew

STATUS = 'call vera FlowService/GetFlow "{\\"flow_id\\": \\"$FLOW\\"}"'

# What a person would wait for before going on; by the first line of the paragraph that it follows.
WAITS = {
    "# Start a flow.": "WAITING_APPROVAL",
    "# Two people of finance": "COMPLETED",
    "# Take it back": "COMPENSATED",
}


@dataclass(frozen=True)
class Installation:
    """Where a running `handrail dev` is, and the clone that it runs in."""

    clone: Path
    address: str
    tokens: Path

    def bash(self, script: str) -> str:
        """Run a script; its output. A command that fails ends it."""
        given = environment(ADDRESS=self.address, TOKENS=str(self.tokens))
        given["PATH"] = f"{self.clone / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        ran = subprocess.run(
            ["bash", "-eu", "-c", script],
            env=given,
            cwd=self.clone,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
        return ran.stdout


def block(language: str) -> str:
    """The one fenced block of this language."""
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"README.md has {len(found)} blocks of {language}"
    return found[0]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of what is committed, set up as `make setup` does it; uv is only faster than pip."""
    folder = tmp_path_factory.mktemp("readme") / "handrail"
    subprocess.run(["git", "-c", "advice.detachedHead=false", "clone", "--quiet", ROOT, folder], check=True)
    python = wheels.environment(folder / ".venv") / "python"
    wheels.uv("pip", "install", "--python", python, "--require-hashes", "--requirement", folder / "requirements.lock")
    wheels.uv("pip", "install", "--python", python, "--no-deps", "--no-build-isolation", "--editable", folder)
    (folder / ".venv" / "installed-from").write_text(f"{folder}\n")
    return folder


@pytest.fixture(scope="module")
def installation(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    assert "    make dev " in README
    data = tmp_path_factory.mktemp("data")
    (clone / "my_agents.py").write_text(block("python"))
    (clone / "house.py").write_text(HOUSE)
    free = f"house --port 0 --nats-port 0 --console-port 0 --json --data {data / 'dev'}"
    with (data / "errors").open("w") as errors:
        dev = subprocess.Popen(
            ["make", "--silent", "dev", f"AGENTS={free}"],
            cwd=clone,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert dev.stdout is not None
        ready: dict[str, Any] = {}
        try:
            line = dev.stdout.readline()
            assert line, (data / "errors").read_text()
            ready = json.loads(line)
            yield Installation(clone, ready["address"], Path(ready["token_files"]["olga"]).parent)
        finally:
            dev.send_signal(signal.SIGTERM)
            dev.communicate(timeout=60)


def test_the_agents_test_passes() -> None:
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(block("python") + block("test"), "README.md", "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 1
    assert inspect.iscoroutinefunction(tests[0])
    here = Path.cwd()
    os.chdir(ROOT)
    try:
        asyncio.run(tests[0]())
    finally:
        os.chdir(here)


def test_the_commands_run(installation: Installation) -> None:
    said = installation.bash(block("handrail"))
    assert "refund  cb-7  1" in said
    assert "name: refund" in said
    assert "The quarantine is empty." in said


def test_the_grpcurl_lines_run(installation: Installation) -> None:
    paragraphs = re.split(r"\n\n(?=# )", block("grpcurl"))
    assert all(any(each.startswith(first) for each in paragraphs) for first in WAITS)
    said = installation.bash("\n".join(line for paragraph in paragraphs for line in with_wait(paragraph)))
    assert "handrail.v1.ApprovalService" in said
    assert "// StartFlow publishes the first event of a flow." in said
    assert '"status": "APPROVAL_STATUS_PENDING"' in said
    assert '"status": "APPROVAL_STATUS_APPROVED"' in said
    assert '"type": "payments.v1.RefundReversed"' in said, "the watch shows the undo"
    assert '"email": "kim@example.com"' in said, "the agent of the README did its part"
    assert "FLOW_STATUS_COMPENSATED" in said.splitlines()


def with_wait(paragraph: str) -> Iterator[str]:
    yield paragraph
    for first, status in WAITS.items():
        if paragraph.startswith(first):
            yield f"until {STATUS} | grep -q FLOW_STATUS_{status}; do sleep 0.1; done"
