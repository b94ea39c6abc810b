"""Agents as processes of their own: killed, stopped, started again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from handrail.mesh.flow import Flow
from handrail.mesh.wire import ids
from handrail.mesh.wire.subjects import Kind
from tests.support.agents import CHAIN, template
from tests.support.mesh import Mesh
from tests.support.nats_server import NatsServer
from tests.support.processes import worker_process
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
LONG = ("effect: UNDOABLE\n    timeout: 30s", "effect: UNDOABLE\n    timeout: 3600s")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the agents leave their traces."""
    folder = tmp_path / "chain"
    folder.mkdir()
    (folder / "chargebacks").write_text("cb-1\n")
    return folder


Process = subprocess.Popen[bytes]
Run = Callable[..., Process]


@pytest.fixture
def run(nats_server: NatsServer, folder: Path) -> Iterator[Run]:
    """Starts processes that run an agent; they are gone when the test ends."""
    with ExitStack() as stack:

        def start(agent: str, *, workers: int = 1, environment: Mapping[str, str] | None = None) -> Process:
            path, log = f"tests.support.chain_agents:{agent}", folder / f"{agent}.log"
            traced = {"CHAIN_FOLDER": str(folder), **(environment or {})}
            return stack.enter_context(worker_process(nats_server, path, log=log, environment=traced, workers=workers))

        yield start


def lines(folder: Path, name: str) -> list[str]:
    """What agents wrote into a file."""
    with suppress(FileNotFoundError):
        return (folder / name).read_text().split()
    return []


def last_error(flow: Flow, step: str) -> str:
    """Why the last attempt of a step failed; empty where none did."""
    return next((run.last_error for run in flow.runs.values() if run.step.name == step), "")


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


FLOW = ids.flow_id_from_key("refund", "cb-1")


async def test_p8_a_process_killed_between_effect_and_publish_pays_once_under_one_key(
    mesh: Mesh, run: Run, folder: Path
) -> None:
    (folder / "kills").write_text("1")
    await mesh.put(template(CHAIN, LONG))
    await mesh.set_ack_wait("ledger", timedelta(seconds=1))
    for agent in ("detection", "enrichment", "notification"):
        run(agent)
    killed = run("ledger")
    await until(lambda: killed.poll() is not None)
    assert killed.returncode == -signal.SIGKILL
    run("ledger")
    await mesh.until_status(FLOW, "COMPLETED", within=60)
    payments = lines(folder, "payments")
    assert len(payments) == 2
    assert len(set(payments)) == 1, "the ledger tells the second payment from the first by its key"


async def test_p7_a_handler_that_kills_its_process_takes_no_other_flow_with_it(
    mesh: Mesh, run: Run, folder: Path
) -> None:
    chargebacks = [f"cb-{number}" for number in range(1, 5)]
    (folder / "chargebacks").write_text("\n".join(chargebacks))
    (folder / "guilty").write_text("cb-1")
    await mesh.put(template(CHAIN, LONG))
    await mesh.set_ack_wait("ledger", timedelta(seconds=2))
    for agent in ("detection", "enrichment", "notification"):
        run(agent)
    await mesh.until_messages(8)
    supervisor = run("ledger", workers=2)
    for name in chargebacks[1:]:
        flow_id = ids.flow_id_from_key("refund", name)
        await mesh.until_status(flow_id, "COMPLETED", within=60)
        assert not any(recorded.kind is Kind.FAILURE for recorded in await mesh.store.read("refund", flow_id))
    guilty = await mesh.until(FLOW, lambda flow: bool(flow.runs and last_error(flow, "pay")), within=60)
    assert last_error(guilty, "pay").startswith("Poison: ")
    begun = Counter(line.partition("@")[0] for line in lines(folder, "begun"))
    assert begun["cb-1"] == 4
    assert max(begun[name] for name in chargebacks[1:]) <= 3, "twice beside the guilty one, then alone"
    log = (folder / "ledger.log").read_text()
    assert f"flow {FLOW}: step pay, attempt 1: Poison" in log
    assert supervisor.poll() is None, "a status of 2 from a handler is not that of an agent that fits no template"


async def test_several_workers_share_the_work_and_a_dead_one_is_started_again(
    mesh: Mesh, run: Run, folder: Path
) -> None:
    await mesh.put(template())
    (folder / "chargebacks").write_text("\n".join(f"cb-{number}" for number in range(400)))
    supervisor = run("enrichment", workers=2)
    await until(lambda: (folder / "enrichment.log").read_text().count("is ready") == 2)
    run("detection")
    await until(lambda: len(set(lines(folder, "workers"))) == 2)
    await mesh.until_messages(800)
    victim = int(lines(folder, "workers")[0])
    os.kill(victim, signal.SIGKILL)
    await until(lambda: (folder / "enrichment.log").read_text().count("is ready") == 3)
    assert "ended with status -9" in (folder / "enrichment.log").read_text()
    workers = {int(pid) for pid in lines(folder, "workers")} - {victim}
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(30) == 0
    assert not any(alive(pid) for pid in workers)


async def test_only_one_of_several_workers_runs_the_sources(mesh: Mesh, run: Run, folder: Path) -> None:
    await mesh.put(template())
    run("detection", workers=3)
    await until(lambda: (folder / "detection.log").read_text().count("is ready") == 3)
    await mesh.until_messages(1)
    assert len(lines(folder, "sources")) == 1


async def test_workers_are_gone_when_their_supervisor_is_killed(mesh: Mesh, run: Run, folder: Path) -> None:
    await mesh.put(template())
    (folder / "chargebacks").write_text("\n".join(f"cb-{number}" for number in range(50)))
    supervisor = run("enrichment", workers=2)
    run("detection")
    await mesh.until_messages(100)
    supervisor.kill()
    supervisor.wait()
    workers = {int(pid) for pid in lines(folder, "workers")}
    assert workers
    await until(lambda: not any(map(alive, workers)))


async def test_a_worker_that_is_asked_to_stop_ends_with_status_0(mesh: Mesh, run: Run, folder: Path) -> None:
    await mesh.put(template())
    for number, asked in enumerate((signal.SIGTERM, signal.SIGINT), start=1):
        process = run("enrichment")
        await until(lambda count=number: (folder / "enrichment.log").read_text().count("is ready") == count)  # type: ignore[misc]
        process.send_signal(asked)
        assert process.wait(20) == 0
    assert "Traceback" not in (folder / "enrichment.log").read_text()


async def test_a_plain_handler_that_never_ends_does_not_keep_its_process_alive(
    mesh: Mesh, run: Run, folder: Path
) -> None:
    await mesh.put(template())
    process = run("stuck")
    run("detection")
    await until(lambda: lines(folder, "stuck"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_an_agent_that_does_not_fit_says_why_in_one_line_and_is_not_started_again(
    mesh: Mesh, run: Run, folder: Path, workers: int
) -> None:
    await mesh.put(template())
    process = run("nobody", workers=workers)
    await until(lambda: process.poll() is not None)
    log = (folder / "nobody.log").read_text()
    assert process.returncode == 2, log
    assert (
        "step enrich belongs to agent enrichment, which has no handler for it: add @agent.on(ChargebackReceived)" in log
    )
    assert "Traceback" not in log


async def test_a_broker_that_is_not_there_ends_the_agent_with_one_line(
    nats_server: NatsServer, run: Run, folder: Path
) -> None:
    nats_server.stop()
    process = run("enrichment")
    await until(lambda: process.poll() is not None)
    log = (folder / "enrichment.log").read_text()
    assert process.returncode == 1
    assert f"can't connect to {nats_server.url}" in log
    assert "Traceback" not in log


async def test_what_is_no_agent_is_told_so(run: Run, folder: Path) -> None:
    process = run("folder")
    await until(lambda: process.poll() is not None)
    assert process.returncode == 2
    assert "module tests.support.chain_agents has no Agent named folder" in (folder / "folder.log").read_text()
