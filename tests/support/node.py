"""The programs of `examples` as processes; those in Node with their npm packages. Without Node, tests that need it are
skipped, which fails in CI (`skips`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.waiting import until

EXAMPLES = Path(__file__).parents[2] / "examples" / "node"
DESCRIPTORS = Path(__file__).parents[2] / "gen/python/handrail/v1/descriptors.binpb"
_OLDEST = 20


def installed(folder: Path, source: Path = EXAMPLES) -> Path:
    """Copies the examples, or another package, into this folder and installs the locked dependencies. Skips the test
    without Node."""
    node, npm = shutil.which("node"), shutil.which("npm")
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout if node else ""
    if npm is None or not version.startswith("v") or int(version[1:].split(".")[0]) < _OLDEST:
        text = f"Node {_OLDEST} or newer, with npm, is needed: there is {version.strip() or 'none'}"
        pytest.skip(text)
    target = folder / "node"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("node_modules"))
    command = [npm, "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=target, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


class NodeAgent:
    """One process that runs an example; its output goes to a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def said(self) -> str:
        """Its output so far."""
        return self._log.read_text()

    async def ready(self) -> None:
        """Waits until it accepts deliveries. Raises AssertionError if it ends before."""
        await until(lambda: "ready" in self.said or self._process.poll() is not None)
        assert self._process.poll() is None, self.said

    def kill(self) -> None:
        """Kills it, whatever it is doing."""
        self._process.kill()
        self._process.wait()


@contextmanager
def running(
    folder: Path, script: str, environment: dict[str, str], *, interpreter: str = "node", arguments: Sequence[str] = ()
) -> Iterator[NodeAgent]:
    """Runs the example while the block runs."""
    log = folder / f"{script}.{os.urandom(4).hex()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [interpreter, script, *arguments],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )
    try:
        yield NodeAgent(process, log)
    finally:
        process.kill()
        process.wait()
