"""Workers on a real server: what they wait for when they start, and what they finish when they stop."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from handrail.agents import Agent, DeclarationError
from handrail.agents.halted_flows import HaltedFlows, HaltWatch
from handrail.agents.worker import Worker
from handrail.mesh.errors import BrokerUnavailable
from handrail.mesh.permissions.accounts import HINT
from handrail.v1.decision_pb2 import FlowHalted, HaltMode
from payments.v1.payments_pb2 import (
    ChargebackEnriched,
    ChargebackReceived,
)
from tests.support.agents import CHAIN, Chain, enriched, template
from tests.support.flows import decision
from tests.support.mesh import Mesh, workers
from tests.support.nats_server import NatsServer
from tests.support.refunds import begin
from tests.support.waiting import until


async def test_a_worker_that_stops_lets_its_handlers_finish_and_takes_nothing_new(
    mesh: Mesh, nats_server: NatsServer
) -> None:
    begun, release = asyncio.Event(), asyncio.Event()
    agent = Agent("enrichment", concurrency=1)

    @agent.on(ChargebackReceived)
    async def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        begun.set()
        await release.wait()
        return enriched(event.chargeback_id)

    await mesh.put(template())
    flows = [await begin(mesh), await begin(mesh)]
    worker = Worker(agent, nats_server.settings("enrichment"))
    running = asyncio.create_task(worker.run())
    await begun.wait()
    worker.stop()
    for _ in range(50):
        await asyncio.sleep(0)  # the worker notices within a few passes of the loop, before the handler ends
    release.set()
    await running
    done = [len((await mesh.flow(flow_id)).facts) for flow_id in flows]
    assert done == [2, 1]


async def test_a_handler_that_does_not_finish_within_the_grace_is_handed_back_at_once(
    mesh: Mesh, nats_server: NatsServer
) -> None:
    chain, begun, cancelled = Chain(), asyncio.Event(), asyncio.Event()
    slow = Agent("enrichment", grace=timedelta(milliseconds=100))

    @slow.on(ChargebackReceived)
    async def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError("unreachable")

    await mesh.put(template())
    flow_id = await begin(mesh)
    worker = Worker(slow, nats_server.settings("enrichment"))
    running = asyncio.create_task(worker.run())
    await begun.wait()
    worker.stop()
    await running
    assert cancelled.is_set()
    async with workers(nats_server.settings, chain.agents):
        # Long before the broker's wait of 30 seconds is over.
        await mesh.until_status(flow_id, "COMPLETED", within=15)


async def test_a_worker_waits_for_a_template_that_names_its_agent(
    mesh: Mesh, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    chain = Chain()
    worker = Worker(chain.enrichment, nats_server.settings("enrichment"))
    running = asyncio.create_task(worker.run())
    await until(lambda: "no stored template names agent enrichment (stored: none)" in caplog.text)
    assert not worker.ready.is_set()
    await mesh.put(template())
    await asyncio.wait_for(worker.ready.wait(), 10)
    worker.stop()
    await running


async def test_handlers_that_do_not_fit_the_active_template_end_the_worker_at_once(
    mesh: Mesh, nats_server: NatsServer
) -> None:
    await mesh.put(template())
    with pytest.raises(DeclarationError, match=r"add @agent.on\(ChargebackReceived\)"):
        await Worker(Agent("enrichment"), nats_server.settings("enrichment")).run()


async def test_a_version_that_is_no_longer_active_may_be_left_behind(mesh: Mesh, nats_server: NatsServer) -> None:
    chain = Chain()
    older = template(CHAIN, ("after: [payments.v1.ChargebackReceived]", "after: [payments.v1.CustomerNotified]"))
    newer = template(CHAIN, ("version: 1", "version: 2"))
    await mesh.put(older, newer)
    async with workers(nats_server.settings, chain.agents):
        flow = await mesh.until_status(await begin(mesh), "COMPLETED")
    assert flow.template.version == 2


async def test_a_version_that_is_activated_while_workers_run_is_taken_up(mesh: Mesh, nats_server: NatsServer) -> None:
    chain = Chain()
    await mesh.put(template())
    async with workers(nats_server.settings, chain.agents):
        await mesh.put(template(CHAIN, ("version: 1", "version: 2")))
        flow = await mesh.until_status(await begin(mesh), "COMPLETED")
        assert flow.template.version == 2


async def test_a_source_that_fails_ends_the_worker_with_its_error(mesh: Mesh, nats_server: NatsServer) -> None:
    detection = Agent("detection")

    @detection.source
    async def feed() -> None:
        raise FileNotFoundError("chargebacks.jsonl")

    await mesh.put(template())
    with pytest.raises(FileNotFoundError):
        await Worker(detection, nats_server.settings("detection")).run()


async def test_a_source_may_end_and_its_agent_goes_on(mesh: Mesh, nats_server: NatsServer) -> None:
    chain, started = Chain(), []

    @chain.ledger.source
    async def nothing() -> None:
        started.append("ledger")

    await mesh.put(template())
    async with workers(nats_server.settings, chain.agents):
        await mesh.until_status(await begin(mesh), "COMPLETED")
    assert started == ["ledger"]


async def test_a_broker_that_is_not_there_is_a_clear_error(nats_server: NatsServer) -> None:
    nats_server.stop()
    settings = replace(nats_server.settings("enrichment"), connect_timeout=timedelta(seconds=1))
    with pytest.raises(BrokerUnavailable, match=r"can't connect to nats://127\.0\.0\.1"):
        await Worker(Agent("enrichment"), settings).run()


async def test_p7_flows_halted_before_a_worker_starts_are_known_to_it_before_its_first_pull(
    mesh: Mesh, nats_server: NatsServer
) -> None:
    await mesh.put(template())
    flow_id = await begin(mesh)
    halt = decision(FlowHalted(mode=HaltMode.HALT_MODE_CANCEL, reason="test"), flow_id=flow_id)
    await mesh.bus.publish(halt.address.subject, halt.body)
    hints = HaltedFlows()
    watch = HaltWatch(mesh.bus, hints, mesh.catalog.names)
    await watch.start()
    assert hints.flow_ids == {flow_id}
    others = ["e" * 32, "f" * 32]
    mesh.bus.connection.send(HINT, "\n".join(["", "nonsense", *others]).encode())
    await until(lambda: others[-1] in hints.flow_ids)
    assert hints.flow_ids == {flow_id, *others}
