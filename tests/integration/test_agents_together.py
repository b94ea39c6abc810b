"""Several agents in one process: their connections, and what one does to the others."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest

from handrail.agents import Agent
from handrail.agents.attempt import Attempt
from handrail.agents.company import Company
from handrail.agents.worker import Worker
from handrail.mesh.flow import Flow
from handrail.mesh.flow.work import Moment
from handrail.mesh.streams import ensure_streams
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry
from payments.v1.payments_pb2 import ChargebackEnriched, ChargebackReceived, CustomerNotified, RefundPaid
from tests.support import accounts
from tests.support.agents import Chain, enriched, notified, template
from tests.support.mesh import Mesh, publish, workers
from tests.support.nats_server import NatsServer
from tests.support.processes import worker_process
from tests.support.refunds import begin
from tests.support.waiting import until

CHAIN_AGENTS = ("detection", "enrichment", "ledger", "notification")
FLOW = ids.flow_id_from_key("refund", "cb-1")

Run = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the agents leave their traces."""
    folder = tmp_path / "chain"
    folder.mkdir()
    (folder / "chargebacks").write_text("cb-1\n")
    return folder


@pytest.fixture
def run(folder: Path) -> Iterator[Run]:
    """Starts a process that runs agents; it is gone when the test ends."""
    with ExitStack() as stack:

        def start(
            server: NatsServer, *agents: str, environment: Mapping[str, str] | None = None
        ) -> subprocess.Popen[bytes]:
            paths = [f"tests.support.chain_agents:{agent}" for agent in agents]
            traced = {"CHAIN_FOLDER": str(folder), **(environment or {})}
            return stack.enter_context(
                worker_process(server, *paths, log=folder / "log", environment=traced, workers=1)
            )

        yield start


async def test_p1_agents_in_one_process_hand_a_flow_to_each_other(
    mesh: Mesh, nats_server: NatsServer, run: Run, folder: Path
) -> None:
    await mesh.put(template())
    process = run(nats_server, *CHAIN_AGENTS)
    await mesh.until_messages(4)
    await mesh.until_status(FLOW, "COMPLETED")
    process.terminate()
    assert process.wait(20) == 0
    log = (folder / "log").read_text()
    assert [f"agent {agent} has stopped" in log for agent in CHAIN_AGENTS] == [True] * 4


async def test_p6_each_agent_of_a_process_is_a_user_of_its_own(tmp_path: Path, run: Run) -> None:
    refund = template()
    with accounts.guarded_server(tmp_path / "nats", refund.proto) as server:
        async with AsyncExitStack() as stack:
            admin = await stack.enter_async_context(await accounts.connect(server, "admin"))
            await ensure_streams(admin)
            set_up = Mesh(admin, Catalog(admin))
            await set_up.put(refund)
            for agent in CHAIN_AGENTS:
                accounts.seed_file(server, agent)
            run(server, *CHAIN_AGENTS, environment={"HANDRAIL_NATS_NKEY_FILE": f"{server.folder}/nkeys/{{agent}}"})
            await set_up.until_messages(4)
            coordinator = await stack.enter_async_context(await accounts.connect(server, "coordinator"))
            flow = await Mesh(coordinator, Catalog(coordinator)).until_status(FLOW, "COMPLETED")
    assert [fact.agent for fact in flow.facts.values()] == list(CHAIN_AGENTS)


async def test_an_agent_that_does_not_fit_ends_the_process_and_is_named(
    mesh: Mesh, nats_server: NatsServer, run: Run, folder: Path
) -> None:
    await mesh.put(template())
    process = run(nats_server, "ledger", "nobody")
    await until(lambda: process.poll() is not None)
    log = (folder / "log").read_text()
    assert process.returncode == 2, log
    assert "agent enrichment: flow type refund, version 1: step enrich belongs to agent enrichment" in log
    if "agent ledger is ready" in log:  # it may not have come to that
        assert "agent ledger has stopped" in log
    assert "Traceback" not in log


async def test_an_agent_that_is_named_twice_is_refused(nats_server: NatsServer, run: Run, folder: Path) -> None:
    process = run(nats_server, "ledger", "enrichment", "nobody")
    await until(lambda: process.poll() is not None)
    assert process.returncode == 2
    assert "agent enrichment is named twice" in (folder / "log").read_text()


async def test_p8_what_may_kill_its_process_waits_for_the_handlers_of_the_other_agents_in_it(
    mesh: Mesh, nats_server: NatsServer
) -> None:
    await mesh.put(template())
    chain = Chain()
    async with workers(nats_server.settings, [chain.enrichment, chain.ledger]):
        suspicious = await begin(mesh)
        flow = await mesh.until(suspicious, lambda flow: len(flow.facts) == 3)
    await publish(mesh.bus, began(flow))

    gate, at_work, told = asyncio.Event(), asyncio.Event(), asyncio.Event()
    slow, guilty = Agent("enrichment"), Agent("notification")

    @slow.on(ChargebackReceived)
    async def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        at_work.set()
        await gate.wait()
        return enriched(event.chargeback_id)

    @guilty.on(RefundPaid)
    async def notify(event: RefundPaid) -> CustomerNotified:
        told.set()
        return notified(event.chargeback_id)

    company = Company()
    await begin(mesh, chargeback_id="cb-2")
    async with asyncio.TaskGroup() as group:
        together = [Worker(agent, nats_server.settings(agent.name), company=company) for agent in (slow, guilty)]
        group.create_task(together[0].run())
        await at_work.wait()
        group.create_task(together[1].run())
        await until(lambda: company.is_closed)
        assert not told.is_set()
        gate.set()
        await told.wait()
        for worker in together:
            worker.stop()


def began(flow: Flow) -> Entry:
    """The record that a worker began the last step of the chain; it never reported an end."""
    [run] = [run for run in flow.runs.values() if run.step.name == "notify"]
    attempt = Attempt(
        template=flow.template,
        flow_id=flow.flow_id,
        step=run.step,
        root=run.root,
        run=run.run,
        attempt=run.attempt,
        cause=run.trigger.event_id,
        inputs=(run.trigger,),
        deadline=run.deadline,
    )
    return attempt.progress(1, "", moment=Moment(run.trigger.time), began=True)
