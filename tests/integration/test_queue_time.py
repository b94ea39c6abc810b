"""Queue time and run time are two things: a healthy agent with more to do than it can do at once fails nothing."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import timedelta

import pytest

from handrail.agents import Agent
from handrail.mesh.flow import RunState
from payments.v1.payments_pb2 import ChargebackEnriched, ChargebackReceived
from tests.support import flows
from tests.support.agents import template
from tests.support.coordinator import coordinating
from tests.support.mesh import Mesh, name_of_status, publish, publish_at_once, workers
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually

FLOWS = 40
WORK = 0.2
"""Seconds that one takes: 40 are 8 s of work, where each may take 5."""

TEMPLATE = """
name: refund
version: 1
starts_with: [payments.v1.ChargebackReceived]
started_by: [detection]
completes_with: [payments.v1.ChargebackEnriched]
deadline: 600s
steps:
  - {name: enrich, agent: enrichment, after: [payments.v1.ChargebackReceived],
     emits: [payments.v1.ChargebackEnriched], effect: IRREVERSIBLE, timeout: 5s, on_failure: FAIL}
"""


@pytest.fixture
async def mesh(mesh: Mesh) -> Mesh:
    await mesh.put(template(TEMPLATE))
    return mesh


def one_at_a_time() -> Agent:
    agent = Agent("enrichment", concurrency=1)

    @agent.on(ChargebackReceived)
    async def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        await asyncio.sleep(WORK)
        return flows.enrichment()

    return agent


def one_thread() -> Agent:
    agent = Agent("enrichment", threads=1)

    @agent.on(ChargebackReceived)
    def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        time.sleep(WORK)
        return flows.enrichment()

    return agent


def one_thread_and_a_full_desk() -> Agent:
    """It takes a hundred at a time, for a handler that is not plain: what has no thread is handed back."""
    agent = one_thread()

    @agent.undoes(ChargebackEnriched)
    async def never(event: ChargebackEnriched) -> None:
        return None

    return agent


def silent() -> Agent:
    agent = Agent("enrichment", grace=timedelta())

    @agent.on(ChargebackReceived)
    async def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        await asyncio.sleep(3600)
        raise AssertionError

    return agent


def ids() -> list[str]:
    return [f"{number:032x}" for number in range(1, FLOWS + 1)]


@pytest.mark.parametrize("agent", [one_at_a_time, one_thread, one_thread_and_a_full_desk])
async def test_p7_more_work_than_fits_into_its_timeout_fails_nothing_at_an_agent_that_does_it(
    mesh: Mesh, nats_server: NatsServer, agent: object
) -> None:
    assert callable(agent)
    async with coordinating(mesh.bus), workers(nats_server.settings, [agent()]):
        await publish_at_once(mesh.bus, map(flows.start, ids()))

        async def over() -> Counter[str]:
            return Counter([name_of_status(await mesh.flow(flow_id)) for flow_id in ids()])

        ended = await eventually(over, lambda status: not status["RUNNING"])
    assert ended == {"COMPLETED": FLOWS}


async def test_p7_what_was_begun_and_is_silent_times_out_in_its_time(mesh: Mesh, nats_server: NatsServer) -> None:
    async with coordinating(mesh.bus), workers(nats_server.settings, [silent()]):
        await publish(mesh.bus, flows.start(ids()[0]))
        flow = await mesh.until_status(ids()[0], "FAILED")
    run = next(iter(flow.runs.values()))
    assert run.ended is not None
    assert 5 <= (run.ended - run.since).total_seconds() < 60


async def test_p7_nothing_waits_for_an_agent_of_which_no_worker_lives(mesh: Mesh) -> None:
    async with coordinating(mesh.bus):
        await publish(mesh.bus, flows.start(ids()[0]))
        flow = await mesh.until_status(ids()[0], "FAILED")
    assert [run.state for run in flow.runs.values()] == [RunState.FAILED]
