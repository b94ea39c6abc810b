"""`handrail dev` as a process of its own, and the `handrail` command against it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any
from unittest import mock

from handrail.cli.main import main
from tests.support.nats_server import die_with_parent

ROOT = Path(__file__).parents[2]
HANDRAIL = (sys.executable, "-m", "handrail.cli.main")

_COMMAND_SECONDS = 60
_NOBODY = TemporaryDirectory(prefix="handrail-user-")


def environment(**more: str) -> dict[str, str]:
    """The environment of this process without Handrail's settings, and without what its user has set or seen."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HANDRAIL_")}
    nobody = {"XDG_STATE_HOME": _NOBODY.name, "XDG_CONFIG_HOME": _NOBODY.name}
    return {**plain, **nobody, **more}


def handrail(
    *arguments: str | Path, env: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs a command in this process: starting an interpreter takes longer than most commands."""
    words = list(map(str, arguments))
    out, err = StringIO(), StringIO()
    with (
        mock.patch.dict(os.environ, environment(**(env or {})), clear=True),
        mock.patch("sys.stdin", StringIO(stdin)),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            code = main(words)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def handrail_process(*arguments: str | Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process of its own."""
    return subprocess.run(
        [*HANDRAIL, *map(str, arguments)],
        env=environment(**(env or {})),
        capture_output=True,
        text=True,
        timeout=_COMMAND_SECONDS,
        check=False,
    )


@dataclass
class Dev:
    """A running `handrail dev`."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]

    @property
    def folder(self) -> Path:
        """The folder with all its data."""
        return Path(self.ready["data"])

    @property
    def processes(self) -> set[int]:
        """Its process and the child processes."""
        return {self.process.pid, *self.ready["pids"].values()}

    def env(self, person: str) -> dict[str, str]:
        """The environment for commands that call as this person."""
        return {"HANDRAIL_ADDRESS": self.ready["address"], "HANDRAIL_TOKEN_FILE": self.ready["token_files"][person]}

    def run(self, person: str, *arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Runs a command as this person."""
        return handrail(*arguments, env=self.env(person), stdin=stdin)

    def text(self, person: str, *arguments: str | Path) -> str:
        """The output of a command, which has to succeed."""
        done = self.run(person, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, person: str, *arguments: str | Path) -> Any:
        """The output of a command with --output json; it has to succeed."""
        return json.loads(self.text(person, *arguments, "--output", "json"))

    def stop(self) -> int:
        """Sends SIGTERM and returns the exit code."""
        self.process.terminate()
        return self.process.wait(60)

    def start_refund(self, units: int) -> str:
        """Starts a refund of this many euros as olga. Returns its flow id."""
        return self.text("olga", "flow", "start", "refund", "--data", chargeback(units)).strip()

    def status(self, flow: str) -> str:
        """The status of a flow: `COMPLETED`."""
        return str(self.json("vera", "flow", "show", flow)["status"]).removeprefix("FLOW_STATUS_")

    def until_listed(self, flow: str) -> None:
        """Waits until lists cover what the flow has now."""
        last = int(self.json("vera", "flow", "show", flow)["lastSequence"])
        newest = ("flow", "list", "--limit", "1")
        wait_for(lambda: self.json("vera", *newest)["asOf"]["sequence"] >= last, "the index to cover the flow")


def chargeback(units: int, *, id_: str = "") -> str:
    """The data of a chargeback of this many euros, as JSON."""
    amount = {"currencyCode": "EUR", "units": str(units)}
    return json.dumps(
        {"chargebackId": id_ or f"cb-{uuid.uuid4().hex[:12]}", "accountId": "acct-0001", "amount": amount}
    )


@contextmanager
def running_dev(folder: Path, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Iterator[Dev]:
    """Runs `handrail dev` on free ports with its data in `folder` while the block runs."""
    command = [
        *HANDRAIL,
        "dev",
        "--json",
        "--data",
        str(folder),
        "--nats-port",
        "0",
        "--port",
        "0",
        "--console-port",
        "0",
        *map(str, arguments),
    ]
    log = folder.with_name(f"{folder.name}.err")
    with log.open("ab") as errors, warnings.catch_warnings():
        # Python 3.12 and newer warn of a fork beside threads; the child makes only one system call.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = subprocess.Popen(
            command,
            env=environment(**(env or {})),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            preexec_fn=die_with_parent,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"handrail dev did not start:\n{log.read_text()}"
        yield Dev(process, json.loads(line))
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def is_alive(pid: int) -> bool:
    """Whether a process is running; a zombie is not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def children(pid: int) -> dict[int, str]:
    """The running children of a process, with their command lines."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                if int(parent) == pid and is_alive(int(folder.name)):
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
    return found


def wait_for(condition: Callable[[], object], what: str, *, seconds: float = 60) -> None:
    """Waits for a condition. Raises AssertionError with `what` was awaited if it does not become true."""
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, f"in vain: {what}"
        sleep(0.05)


def all_gone(pids: Sequence[int] | set[int]) -> bool:
    """Whether all of these processes have ended."""
    return not any(is_alive(pid) for pid in pids)
