"""Processes that help to fold: the index is the same with them, whatever becomes of them."""

import logging
import multiprocessing
import os
import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from handrail.mesh.bus import NatsBus
from handrail.mesh.permissions import VISIBILITY
from handrail.mesh.streams.readers import EVERYTHING, ensure_reading
from handrail.visibility.follow.load import Load
from tests.support.flows import enriched, start, template
from tests.support.followed import covered, expected, following, found, until_covered
from tests.support.mesh import Mesh, publish
from tests.support.nats_server import NatsServer
from tests.support.processes import visibility_process
from tests.support.recorded_refunds import record, refund_template
from tests.support.waiting import until

FLOWS = 300
EAGER = Load(processes=2, batch=300, many=1, much=300, few=1)
"""Has processes help early."""

PROGRAM = """
import os, uvloop
from handrail.mesh.bus import BusSettings
from handrail.mesh.telemetry import logs
from handrail.visibility.follow.load import Load
from handrail.visibility.main import run_visibility
logs.configure("INFO")
settings = BusSettings(servers=(os.environ["HANDRAIL_NATS"],), name="visibility")
load = Load(processes=2, batch=300, many=1, much=300, few=1)
uvloop.run(run_visibility(settings, os.environ["HANDRAIL_DATABASE"], load=load))
"""
"""`handrail visibility` that has processes help early."""


def helpers() -> list[int]:
    """The processes that help this one."""
    return [each.pid for each in multiprocessing.active_children() if each.name == "folding" and each.pid]


def are_gone(processes: Sequence[int]) -> bool:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, 0)
            return False
    return True


async def test_an_index_that_processes_helped_to_make_is_the_same(
    mesh: Mesh, bus: NatsBus, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await mesh.put(refund_template())
    await record(bus, FLOWS, seed=1, at_once=100)
    early, unknown = f"{1:032x}", f"{2:032x}"
    await publish(bus, enriched(early), start(early), start(unknown, flow_type="loan"))
    await record(bus, FLOWS, seed=2)
    async with following(bus, engine, load=EAGER):
        await until_covered(bus, engine)
        await record(bus, FLOWS, seed=3, at_once=10)
        await until_covered(bus, engine)
        await until(lambda: not helpers())  # they are done
        await record(bus, 20, seed=4)
        await until_covered(bus, engine)
    assert "help to fold" in caplog.text
    rows = found(engine)
    assert rows == await expected(bus, mesh.store)
    assert len(rows["flow"]) == 3 * FLOWS + 21


@pytest.mark.parametrize(
    "number, patience",
    [(signal.SIGKILL, EAGER.patience), (signal.SIGSTOP, timedelta(seconds=8))],
    ids=["dies", "hangs"],
)
async def test_p4_the_work_of_a_process_that_dies_or_hangs_is_done_again(
    mesh: Mesh,
    bus: NatsBus,
    engine: Engine,
    caplog: pytest.LogCaptureFixture,
    number: signal.Signals,
    patience: timedelta,
) -> None:
    await mesh.put(refund_template())
    await record(bus, 3 * FLOWS, seed=1, at_once=40)  # most flows begin and end in one batch, some don't
    async with following(bus, engine, load=replace(EAGER, patience=patience)):
        victim = (await until(helpers))[0]
        before = covered(engine)
        await until(lambda: covered(engine) > before)
        os.kill(victim, number)
        await record(bus, FLOWS, seed=2, at_once=40)  # it may have been through with its work
        await until_covered(bus, engine)
        await until(lambda: not helpers())
    assert f"the folding process {victim} " in caplog.text
    assert "its work is done again" in caplog.text
    assert found(engine) == await expected(bus, mesh.store)


async def test_a_template_that_comes_meanwhile_reaches_the_processes(mesh: Mesh, bus: NatsBus, engine: Engine) -> None:
    await mesh.put(template())
    await publish(bus, *(start(f"{n:032x}") for n in range(1, 700)))
    async with following(bus, engine, load=replace(EAGER, few=0)):
        await until(helpers)
        await mesh.put(template("loan"))
        for some in (range(700, 750), range(750, 800)):
            await publish(bus, *(start(f"{n:032x}", flow_type="loan") for n in some))
            await until_covered(bus, engine)
        assert helpers()
    assert found(engine) == await expected(bus, mesh.store)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
async def test_a_killed_process_takes_its_helpers_along_and_nothing_is_lost_or_doubled(
    nats_server: NatsServer, mesh: Mesh, bus: NatsBus, engine: Engine, address: str, tmp_path: Path
) -> None:
    await mesh.put(refund_template())
    await ensure_reading(bus, VISIBILITY, [EVERYTHING])
    log = tmp_path / "log"
    for seed in (1, 2):
        await record(bus, 2 * FLOWS, seed=seed)
        told = len(log.read_text()) if log.exists() else 0
        with visibility_process(nats_server, address, log, program=("-c", PROGRAM)):
            await until(lambda told=told: "help to fold" in log.read_text()[told:])  # type: ignore[misc]
            before = covered(engine)
            await until(lambda before=before: covered(engine) > before)  # type: ignore[misc]
        processes = [int(each) for each in re.findall(r"the processes (\d+), (\d+) help", log.read_text())[-1]]
        await until(lambda processes=processes: are_gone(processes))  # type: ignore[misc]
    with visibility_process(nats_server, address, log, program=("-c", PROGRAM)) as last:
        await until_covered(bus, engine)
        last.terminate()
        assert last.wait(timeout=30) == 0, log.read_text()
    assert found(engine) == await expected(bus, mesh.store)
