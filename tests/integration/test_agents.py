"""Agents on a real server, without any coordinator."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from handrail.agents import Agent, Context
from handrail.mesh.streams import ensure_streams, start_flow
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import pack
from handrail.mesh.wire.subjects import Address, Kind
from handrail.v1.failure_pb2 import Divergence, DivergenceKind
from payments.v1.payments_pb2 import (
    ChargebackEnriched,
    ChargebackReceived,
    CustomerNotified,
    RefundPaid,
    RefundReversed,
    SmallRefundGranted,
)
from tests.support.accounts import as_user, configuration, connect, guarded_server
from tests.support.agents import AMOUNT, CHAIN, Chain, enriched, notified, paid, received, template
from tests.support.mesh import Mesh, workers
from tests.support.nats_server import NatsServer
from tests.support.refunds import begin
from tests.support.waiting import eventually, until


async def test_p1_a_hundred_flows_end_with_four_messages_each_and_everything_acked(
    mesh: Mesh, nats_server: NatsServer
) -> None:
    chain = Chain()
    await mesh.put(template())
    async with workers(nats_server.settings, chain.agents):
        flows = await asyncio.gather(*(begin(mesh) for _ in range(100)))
        for flow_id in flows:
            await mesh.until_status(flow_id, "COMPLETED")
        assert await mesh.messages() == 400
        for agent in chain.agents:
            await mesh.until_settled(agent.name)
    assert sorted(chain.outbox) == sorted(flows)
    assert chain.book.balance == 100 * 250


async def test_p1_flows_begun_while_an_agent_was_away_are_done_when_it_comes_back(
    mesh: Mesh, nats_server: NatsServer
) -> None:
    chain = Chain()
    await mesh.put(template())
    flow_id = await begin(mesh)
    async with workers(nats_server.settings, [chain.notification, chain.ledger]):
        await eventually(lambda: mesh.unsettled("enrichment"), lambda waiting: waiting == 1)
    async with workers(nats_server.settings, chain.agents):
        await mesh.until_status(flow_id, "COMPLETED")
    assert chain.outbox == [flow_id]


async def test_p3_racing_starts_by_the_same_key_begin_one_flow(mesh: Mesh, nats_server: NatsServer) -> None:
    detection = Agent("detection")
    await mesh.put(template())
    async with workers(nats_server.settings, [detection]):
        started = await asyncio.gather(
            *(detection.start_flow("refund", received(f"cb-{n}"), key="the-key") for n in range(20))
        )
    assert len({flow.flow_id for flow in started}) == 1
    assert Counter(flow.already_started for flow in started) == {True: 19, False: 1}
    assert await mesh.messages() == 1
    assert await mesh.messages("KEY") == 1


async def test_p3_a_start_that_died_after_the_key_is_made_good_by_the_next(mesh: Mesh, nats_server: NatsServer) -> None:
    detection = Agent("detection")
    await mesh.put(template())
    flow_id = ids.flow_id_from_key("refund", "the-key")
    await mesh.bus.publish(f"key.refund.{ids.key_hash('refund', 'the-key')}", flow_id.encode())
    async with workers(nats_server.settings, [detection]):
        started = await detection.start_flow("refund", received(), key="the-key")
    assert started.flow_id == flow_id
    assert not started.already_started
    assert await mesh.messages() == 1


FAN_OUT = """
name: refund
version: 1
starts_with: [payments.v1.ChargebackReceived]
started_by: [detection]
completes_with: [payments.v1.CustomerNotified]
deadline: 86400s
steps:
  - {name: split, agent: splitter, after: [payments.v1.ChargebackReceived], emits: [payments.v1.SmallRefundGranted],
     effect: NONE, timeout: 30s}
  - {name: pay, agent: ledger, after: [payments.v1.SmallRefundGranted], emits: [payments.v1.RefundPaid],
     effect: NONE, timeout: 30s}
  - {name: tell, agent: notification, after_all: [
       {type: payments.v1.ChargebackReceived},
       {type: payments.v1.RefundPaid, count: "int(latest['payments.v1.ChargebackReceived'].amount.units)"}],
     emits: [payments.v1.CustomerNotified], effect: NONE, timeout: 30s}
"""


async def test_p1_a_fan_out_is_joined_once_however_many_workers_race(mesh: Mesh, nats_server: NatsServer) -> None:
    splitter, ledger, notification = Agent("splitter"), Agent("ledger"), Agent("notification")
    joined: list[tuple[str, int]] = []

    @splitter.on(ChargebackReceived)
    async def split(event: ChargebackReceived) -> list[SmallRefundGranted]:
        part = SmallRefundGranted(chargeback_id="p", account_id="a", amount=AMOUNT, email="kim@example.com")
        return [part] * event.amount.units

    @ledger.on(SmallRefundGranted)
    async def pay(event: SmallRefundGranted, ctx: Context) -> RefundPaid:
        return paid(ctx.idempotency_key)

    @notification.on_all(ChargebackReceived, RefundPaid)
    async def tell(first: ChargebackReceived, parts: list[RefundPaid], ctx: Context) -> CustomerNotified:
        joined.append((ctx.flow_id, len({part.transfer_id for part in parts})))
        return notified()

    await mesh.put(template(FAN_OUT))
    async with workers(nats_server.settings, [splitter, ledger, notification], of_each=2):
        active = await mesh.catalog.active("refund")
        event = received()
        event.amount.units = 10
        flows = [
            (await start_flow.start(mesh.bus, active, source="detection", data=pack(event))).flow_id for _ in range(10)
        ]
        for flow_id in flows:
            flow = await mesh.until_status(flow_id, "COMPLETED")
            assert len(flow.runs) == 12
            assert flow.message_count == 1 + 10 + 10 + 1
    assert sorted(joined) == sorted((flow_id, 10) for flow_id in flows)


async def test_p3_p8_a_redelivery_while_the_handler_is_at_work_does_not_start_it_twice_here(
    mesh: Mesh, nats_server: NatsServer
) -> None:
    """A second worker does start it, as it must when the first may be dead: under the same key, with one fact."""
    chain, release, keys = Chain(), asyncio.Event(), []
    ledger = Agent("ledger")

    @ledger.on(ChargebackEnriched)
    async def pay(event: ChargebackEnriched, ctx: Context) -> RefundPaid:
        keys.append(ctx.idempotency_key)
        await release.wait()
        return paid(f"t-{len(keys)}")

    @ledger.undoes(RefundPaid)
    async def take_back(event: RefundPaid) -> RefundReversed:
        raise AssertionError("nothing is undone here")

    await mesh.put(template())
    await mesh.set_ack_wait("ledger", timedelta(seconds=1))
    async with workers(nats_server.settings, [chain.enrichment, ledger, chain.notification], of_each=2):
        flow_id = await begin(mesh)
        await until(lambda: len(keys) == 2)
        release.set()
        flow = await mesh.until_status(flow_id, "COMPLETED")
        assert len(flow.facts) == 4
        assert len(set(keys)) == 1
        assert len(keys) == 2


async def test_p3_of_racing_attempts_with_different_answers_one_is_stored_and_the_other_is_a_divergence(
    mesh: Mesh, nats_server: NatsServer
) -> None:
    chain, both = Chain(), asyncio.Event()
    answers: list[str] = []
    ledger = Agent("ledger")

    @ledger.on(ChargebackEnriched)
    async def pay(event: ChargebackEnriched) -> RefundPaid:
        answers.append(f"t-{len(answers)}")
        mine = answers[-1]
        if len(answers) == 2:
            both.set()
        await both.wait()
        return paid(mine)

    @ledger.undoes(RefundPaid)
    async def take_back(event: RefundPaid) -> RefundReversed:
        raise AssertionError("nothing is undone here")

    await mesh.put(template())
    await mesh.set_ack_wait("ledger", timedelta(seconds=1))
    async with workers(nats_server.settings, [chain.enrichment, ledger, chain.notification], of_each=2):
        flow_id = await begin(mesh)
        await mesh.until_status(flow_id, "COMPLETED")
        flow = await mesh.until(flow_id, lambda flow: bool(flow.divergences))
    history = await mesh.store.read("refund", flow_id)
    [divergence] = [
        Divergence.FromString(recorded.event.data.value) for recorded in history if recorded.kind is Kind.DIVERGENCE
    ]
    assert divergence.kind == DivergenceKind.DIVERGENCE_KIND_DIFFERENT_ANSWER
    assert len(flow.facts_by_type["payments.v1.RefundPaid"]) == 1


async def test_p8_deliveries_still_in_hand_are_told_to_the_broker_so_that_none_comes_twice(
    mesh: Mesh, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = timedelta(seconds=5)  # a busy machine stalls for seconds
    monkeypatch.setattr("handrail.agents.worker.ACK_WAIT", wait)
    chain, calls = Chain(), 0
    ledger = Agent("ledger")

    @ledger.on(ChargebackEnriched)
    async def pay(event: ChargebackEnriched) -> RefundPaid:
        nonlocal calls
        calls += 1
        await asyncio.sleep(2.2 * wait.total_seconds())
        return paid()

    @ledger.undoes(RefundPaid)
    async def take_back(event: RefundPaid) -> RefundReversed:
        raise AssertionError("nothing is undone here")

    await mesh.put(template())
    await mesh.set_ack_wait("ledger", wait)
    async with workers(nats_server.settings, [chain.enrichment, ledger, chain.notification]):
        await mesh.until_status(await begin(mesh), "COMPLETED")
        info = await mesh.bus.request_json("$JS.API.CONSUMER.INFO.FLOW.agent-ledger")
    assert calls == 1
    assert info["num_redelivered"] == 0


async def test_p5_nothing_on_any_subject_of_an_agent_stops_it(mesh: Mesh, nats_server: NatsServer) -> None:
    chain = Chain()
    await mesh.put(template())
    flow_id = "0123456789abcdef" * 2
    name = "payments.v1.ChargebackEnriched"
    hostile = [
        (Address("refund", flow_id, Kind.EVENT, "enrichment", "a" * 32, name).subject, b"\xff\xff\xff"),
        (Address("refund", flow_id, Kind.EVENT, "enrichment", "b" * 32, name).subject, b""),
        (f"flow.refund.{'x' * 500}.event.enrichment.{'c' * 32}.{name}", b"{}"),
        (f"flow.refund.{flow_id}.event.enrichment.{'d' * 3000}.{name}", b"{}"),
        (Address("refund", flow_id, Kind.RETRY, "ledger", "e" * 32, name).subject, b"\x00"),
        (Address("refund", flow_id, Kind.UNDO, "ledger", "f" * 32, name).subject, bytes(100_000)),
    ]
    async with workers(nats_server.settings, chain.agents):
        for subject, body in hostile:
            await mesh.bus.publish(subject, body)
        await eventually(lambda: mesh.messages("QUARANTINE_ledger"), lambda number: number == len(hostile))
        await mesh.until_settled("ledger")
        await mesh.until_status(await begin(mesh), "COMPLETED")
    assert len(chain.book.calls) == 1


async def test_p5_a_full_stream_loses_nothing_and_goes_on_when_there_is_room(
    mesh: Mesh, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    chain = Chain()
    await mesh.put(template())
    flows = [await begin(mesh) for _ in range(20)]
    config = (await mesh.bus.request_json("$JS.API.STREAM.INFO.FLOW"))["config"]
    await mesh.bus.request_json("$JS.API.STREAM.UPDATE.FLOW", {**config, "max_msgs": 30})
    async with workers(nats_server.settings, chain.agents):
        await eventually(mesh.messages, lambda number: number == 30)
        await until(lambda: caplog.text.count("stream FLOW is full") >= 20)
        assert await mesh.messages() == 30
        await mesh.bus.request_json("$JS.API.STREAM.UPDATE.FLOW", {**config, "max_msgs": -1})
        for flow_id in flows:
            await mesh.until_status(flow_id, "COMPLETED")
    assert len(chain.book.calls) == 20, "no handler ran twice for want of room"


async def test_no_more_handlers_run_at_a_time_than_the_agent_allows(mesh: Mesh, nats_server: NatsServer) -> None:
    at_work, most, agent = 0, 0, Agent("enrichment", concurrency=3)
    waiting: list[asyncio.Event] = []

    @agent.on(ChargebackReceived)
    async def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        done = asyncio.Event()
        waiting.append(done)
        await done.wait()
        at_work -= 1
        return enriched(event.chargeback_id)

    await mesh.put(template())
    for _ in range(12):
        await begin(mesh)
    async with workers(nats_server.settings, [agent]):
        for number in range(12):
            await until(lambda needed=number: len(waiting) > needed)  # type: ignore[misc]
            if number >= 2:
                waiting[number - 2].set()
        waiting[-1].set()
        waiting[-2].set()
        await mesh.until_messages(24)
    assert most == 3


async def test_p6_an_agent_without_permission_says_so_and_goes_on_once_it_has_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the users and permissions that Handrail generates, of a template that the broker learns of late."""
    calls = 0
    agent = Agent("enrichment")

    @agent.on(ChargebackReceived)
    async def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        nonlocal calls
        calls += 1
        return enriched(event.chargeback_id)

    complete = template()
    emits = ("emits: [payments.v1.ChargebackEnriched]", "emits: [payments.v1.LargeRefundGranted]")
    with guarded_server(tmp_path / "nats", template(CHAIN, emits).proto) as server:
        async with await connect(server, "coordinator") as bus:
            await ensure_streams(bus)
            mesh = Mesh(bus, Catalog(bus))
            await mesh.put(complete)
            async with workers(partial(as_user, server), [agent]):
                flow_id = await begin(mesh, as_agent="coordinator")
                await until(lambda: "the broker refuses flow.refund." in caplog.text)
                assert f"flow.refund.{flow_id}.event.enrichment." in caplog.text
                assert "handrail nats-permissions" in caplog.text
                server.write_config(accounts=configuration(complete.proto))
                server.reload()
                await mesh.until(flow_id, lambda flow: len(flow.facts) == 2)
                assert await mesh.messages() == 2
    assert calls == 1
