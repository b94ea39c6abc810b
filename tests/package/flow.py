"""A flow from its project to its end, in environments that have only the wheel."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from handrail.cli.credentials import CredentialsFolder

_AGENTS = ("assessor", "buyer")
_SECONDS = 60
_FIRST = {"requestId": "r-1", "cents": 1000}


def run_flow(folder: Path, *, agent: Path, dev: Path) -> str:
    """Creates a project in the folder, runs a flow of it, and returns the flow's last status.

    `agent` and `dev` are the folders of two environments' programs: agents run with the first, all else with the
    second. Raises CalledProcessError or RuntimeError if something fails.
    """
    folder.mkdir()
    command = Command(dev, folder, {})
    command.run("new", "loans")
    command.folder = folder / "loans"
    command.run("contracts", "generate", "proto", "--out", ".")
    with ExitStack() as stack:
        ready = stack.enter_context(installation(command, folder / "data"))
        command.environment |= {
            "HANDRAIL_ADDRESS": ready["address"],
            "HANDRAIL_TOKEN_FILE": ready["token_files"]["olga"],
        }
        why = ("--activate", "--reason", "the first one")
        command.run("template", "put", "loans/loans.yaml", "--contracts", "loans", *why)
        for name in _AGENTS:
            user = credentials(Path(ready["credentials"]), name) | {"HANDRAIL_NATS": ready["nats"]}
            worker = Command(agent, command.folder, user)
            stack.enter_context(worker.running("agent", "run", f"loans.{name}:agent"))
        flow = command.run("flow", "start", "loans", "--data", json.dumps(_FIRST)).strip()
        command.run("flow", "watch", flow)
        shown: dict[str, Any] = json.loads(command.run("flow", "show", flow, "--output", "json"))
    return status(shown)


def status(shown: Mapping[str, Any]) -> str:
    """Returns the status of a flow that ended as it should; raises RuntimeError for any other."""
    flow = shown.get("flow", shown)
    if flow["status"] != "FLOW_STATUS_COMPLETED":
        raise RuntimeError(f"the flow ended {flow['status']}")
    return "COMPLETED"


@contextmanager
def installation(command: Command, data: Path) -> Iterator[dict[str, Any]]:
    """Runs `handrail dev` without agents, on free ports; yields what it prints when it is ready."""
    ports = ("--port", "0", "--nats-port", "0")
    with command.running("dev", *ports, "--json", "--data", str(data)) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("handrail dev ended before it was ready")
        yield json.loads(line)


def credentials(folder: Path, name: str) -> dict[str, str]:
    """Waits until the broker has this user, and returns the variables with which an agent connects as it."""
    until = time.monotonic() + _SECONDS
    while not (folder / name).is_dir():
        if time.monotonic() > until:
            raise RuntimeError(f"no credentials of {name} in {folder} after {_SECONDS} s")
        time.sleep(0.1)
    return CredentialsFolder(folder).user(name).environment()


class Command:
    """`handrail` of an environment, in a folder, with variables of its own and none of this process's settings."""

    def __init__(self, programs: Path, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self._program = programs / "handrail"
        self.environment = {"PATH": f"{programs}{os.pathsep}{os.defpath}", "HOME": str(folder), **environment}

    def run(self, *arguments: str) -> str:
        """Runs it to its end and returns its output; raises CalledProcessError if it fails."""
        command = [str(self._program), *arguments]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        ).stdout

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Runs it until the end of the block."""
        command = [str(self._program), *arguments]
        process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=_SECONDS)
