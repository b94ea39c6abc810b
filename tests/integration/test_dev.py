"""`handrail dev`: everything starts, everything is looked after, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.support import loans
from tests.support.dev import (
    HANDRAIL,
    Dev,
    all_gone,
    children,
    environment,
    handrail_process,
    is_alive,
    running_dev,
    wait_for,
)

CHARGEBACK = json.dumps(
    {"chargebackId": "cb-1", "accountId": "acct-0001", "amount": {"currencyCode": "EUR", "units": "20"}}
)
AGENTS = {"detection", "enrichment", "refunds", "ledger", "notification"}
PEOPLE = {"anna", "ben", "olga", "vera"}


def test_it_starts_everything_and_a_flow_runs(tmp_path: Path) -> None:
    with running_dev(tmp_path / "data", "--agents", "demos.payments") as dev:
        assert set(dev.ready["pids"]) == AGENTS | {"nats-server", "coordinator", "visibility", "console"}
        assert set(dev.ready["tokens"]) == PEOPLE
        for file in dev.ready["token_files"].values():
            assert Path(file).stat().st_mode & 0o077 == 0
        flow = dev.text("olga", "flow", "start", "refund", "--data", CHARGEBACK, "--key", "cb-1").strip()
        assert "COMPLETED" in dev.text("vera", "flow", "watch", flow)
        assert dev.stop() == 0
        assert all_gone(dev.processes)


def test_it_prints_what_to_try_and_where_the_command_is(tmp_path: Path) -> None:
    command = [*HANDRAIL, "dev", "--nats-port", "0", "--port", "0", "--console-port", "0"]
    with subprocess.Popen(
        command, env=environment(TMPDIR=str(tmp_path), PATH=os.defpath), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            printed.append(line.strip())
            if line.startswith("Ctrl-C"):
                process.terminate()
    assert process.returncode == 0
    path = f"export PATH={Path(sys.executable).parent}:$PATH"
    done = subprocess.run(["sh", "-c", f"{path}; handrail --version"], capture_output=True, text=True, check=True)
    assert path in printed
    assert "handrail flow list" in printed
    assert done.stdout.startswith("handrail ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_whatever_ends_it_no_process_is_left_behind(tmp_path: Path, number: signal.Signals) -> None:
    with running_dev(tmp_path / "data", "--agents", "demos.payments") as dev:
        assert all(map(is_alive, dev.processes))
        assert children(dev.process.pid).keys() == dev.processes - {dev.process.pid}
        dev.process.send_signal(number)
        wait_for(lambda: all_gone(dev.processes), f"the end of all children after {number.name}")
        assert dev.process.wait(10) == (-number if number is signal.SIGKILL else 0)


def test_a_temporary_folder_is_gone_afterwards(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*HANDRAIL, "dev", "--json", "--nats-port", "0", "--port", "0", "--console-port", "0"],
        env=environment(TMPDIR=str(tmp_path)),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        folder = Path(json.loads(process.stdout.readline())["data"])
        assert folder.parent == tmp_path
        assert folder.exists()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert not folder.exists()


@pytest.mark.parametrize("flag", ["--port", "--nats-port"])
def test_a_taken_port_is_a_clear_error(tmp_path: Path, flag: str) -> None:
    other = {"--port": "--nats-port", "--nats-port": "--port"}[flag]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = handrail_process("dev", "--data", tmp_path / "data", other, "0", flag, port, "--console-port", "0")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"handrail: port {port} can't be used: Address already in use; {flag} 0 takes a free one"
    )
    assert "Traceback" not in done.stderr


def test_two_do_not_share_a_folder(tmp_path: Path) -> None:
    with running_dev(tmp_path / "data"):
        done = handrail_process(
            "dev", "--data", tmp_path / "data", "--nats-port", "0", "--port", "0", "--console-port", "0"
        )
        assert done.returncode == 1
        assert "is in use by another `handrail dev`" in done.stderr


@pytest.mark.parametrize(
    "package, complaint",
    [
        ("no.such.package", "can't be imported"),
        ("json", "declares no TEMPLATES"),
        ("tests.support.loans", "no TEMPLATES"),
    ],
)
def test_a_package_that_is_none_is_a_clear_error(tmp_path: Path, package: str, complaint: str) -> None:
    done = handrail_process("dev", "--data", tmp_path / "data", "--agents", package, "--console-port", "0")
    assert done.returncode == 1
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def runs_again(dev: Dev, word: str, killed: int) -> bool:
    """Whether a child with this word in its command line runs, and it is another process than before."""
    return any(word in command and pid != killed for pid, command in children(dev.process.pid).items())


def test_what_dies_is_started_again(tmp_path: Path) -> None:
    with running_dev(tmp_path / "data", "--agents", "demos.payments") as dev:
        for name, word in (
            ("ledger", "demos.payments.ledger:agent"),
            ("coordinator", " coordinator "),
            ("nats-server", "nats.conf"),
        ):
            killed = dev.ready["pids"][name]
            os.kill(killed, signal.SIGKILL)
            wait_for(partial(runs_again, dev, word, killed), f"{name} to be started again")
        wait_for(lambda: dev.run("vera", "flow", "list").returncode == 0, "the coordinator to answer")
        flow = dev.text("olga", "flow", "start", "refund", "--data", CHARGEBACK, "--key", "cb-1", "--timeout", "60s")
        assert "COMPLETED" in dev.text("vera", "flow", "watch", flow.strip(), "--timeout", "60s")
    log = (tmp_path / "data.err").read_text()
    for name in ("ledger", "coordinator", "nats-server"):
        assert f"{name} was killed by SIGKILL" in log


def test_a_kept_folder_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with running_dev(folder, "--agents", "demos.payments") as dev:
        flow = dev.text("olga", "flow", "start", "refund", "--data", CHARGEBACK, "--key", "cb-1").strip()
        dev.text("olga", "flow", "watch", flow)
    # Without its agents the templates are there all the same, and so are the agents' permissions.
    with running_dev(folder) as dev:
        dev.until_listed(flow)
        assert [each["flowId"] for each in dev.json("vera", "flow", "list")["flows"]] == [flow]
        assert [each["version"] for each in dev.json("vera", "template", "list")["templates"]] == [1]
        permissions = (folder / "nats" / "permissions.conf").read_text()
        assert all(f"\n# {agent}: " in permissions for agent in AGENTS)


def test_an_activated_template_brings_its_agents_permissions(tmp_path: Path) -> None:
    template, image = tmp_path / "loan.json", tmp_path / "loans.binpb"
    image.write_bytes(loans.descriptors(tmp_path / "proto"))
    template.write_text(json.dumps(loans.TEMPLATE))
    with running_dev(tmp_path / "data") as dev:
        permissions = dev.folder / "nats" / "permissions.conf"
        assert "# stacks: " not in permissions.read_text()
        printed = dev.text("olga", "template", "put", template, "--contracts", image, "--activate")
        assert "The broker's permissions have changed" in printed
        nkey = dev.folder / "credentials" / "stacks" / "nkey"
        wait_for(nkey.exists, "an nkey for the new agent")
        wait_for(lambda: "# stacks: " in permissions.read_text(), "the permissions of the new agent")
        wait_for(
            lambda: "permissions were regenerated and reloaded" in (tmp_path / "data.err").read_text(), "the reload"
        )
        done = handrail_process(
            *("agent", "run", "tests.support.dev:none", "--nats", dev.ready["nats"], "--nats-nkey-file", nkey)
        )
        assert done.returncode == 2  # there is no such agent; the command says so in one line
        assert len(done.stderr.splitlines()) == 1
