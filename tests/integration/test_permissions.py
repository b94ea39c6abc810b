"""P6 on the broker itself: what the generated permissions refuse, no agent can do; what it must do, it can."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from handrail.coordinator.lists.bulk_read import scan
from handrail.mesh.bus import Delivery, NatsBus
from handrail.mesh.bus.nkey import new_seed, public_key
from handrail.mesh.bus.protocol import Message
from handrail.mesh.errors import BrokerPermission, BrokerUnavailable, HandrailError, WrongCredentials
from handrail.mesh.permissions import durable
from handrail.mesh.permissions.accounts import HINT
from handrail.mesh.streams import FLOW, TIMER, ensure_stream, ensure_streams, quarantine_stream, stream_configs
from handrail.mesh.streams.durables import agent_durable
from handrail.mesh.streams.set_up import Wishes, set_up
from handrail.mesh.wire.subjects import Address, Kind, activation_subject, template_subject, timer_subject
from handrail.v1.template_pb2 import FlowTemplate, Step, Undo
from tests.support.accounts import asked_and_granted, configuration, connect, guarded_server
from tests.support.nats_server import NatsCluster, NatsServer, running_cluster
from tests.support.waiting import eventually

FLOW_ID, EVENT_ID, OTHER_ID = "a" * 32, "b" * 32, "c" * 32
SOON = timedelta(seconds=5)


def template(version: int = 1, *, reviewed: bool = False) -> FlowTemplate:
    """A refund: refunds proposes, ledger pays; `reviewed` adds an agent."""
    pay = Step(name="pay", agent="ledger", after=["shop.v1.Granted"], emits=["shop.v1.Paid"], undo=Undo())
    review = Step(name="review", agent="review", after=["shop.v1.Paid"], emits=["shop.v1.Reviewed"])
    made = asked_and_granted(pay, *[review] * reviewed, version=version)
    made.steps[0].emits.append("shop.v1.Small")
    made.gates.add(name="large", on="shop.v1.Granted")
    return made


def subject(kind: Kind, agent: str, message: str, *, event_id: str = EVENT_ID) -> str:
    return Address("refund", FLOW_ID, kind, agent, event_id, message).subject


class House:
    """A broker, or three, with the streams and two durables that take what is gated, and connections as any user: no
    template is stored, because what an agent may do is up to the broker alone."""

    def __init__(self, broker: NatsServer | NatsCluster, stack: AsyncExitStack) -> None:
        self.broker = broker
        self._stack = stack

    async def prepare(self, *, replicas: int) -> None:
        coordinator = await self.connect("coordinator")
        await ensure_streams(coordinator, replicas=replicas)
        for agent in ("ledger", "refunds"):
            await ensure_stream(coordinator, quarantine_stream(agent), like=FLOW)
            config = {
                "durable_name": agent_durable(agent),
                "ack_policy": "explicit",
                "filter_subjects": [f"flow.refund.*.proposal.{agent}.>", "flow.refund.*.released.*.*.shop.v1.Granted"],
            }
            await coordinator.request_json(
                f"$JS.API.CONSUMER.CREATE.{FLOW}.{agent_durable(agent)}", {"stream_name": FLOW, "config": config}
            )

    async def connect(self, user: str, *, node: int = 0) -> NatsBus:
        server = self.broker.servers[node] if isinstance(self.broker, NatsCluster) else self.broker
        bus = await connect(server, user)
        self._stack.push_async_callback(bus.close)
        return bus

    async def connect_once_allowed(self, user: str) -> NatsBus:
        """The same for a user whom a reload is about to bring."""

        async def attempt() -> NatsBus | None:
            with suppress(BrokerPermission, BrokerUnavailable):
                return await self.connect(user)
            return None

        bus = await eventually(attempt)
        assert bus is not None
        return bus

    async def subjects(self) -> set[str]:
        """What the FLOW stream holds."""
        info = await (await self.connect("admin")).request_json("$JS.API.STREAM.INFO.FLOW", {"subjects_filter": ">"})
        return set(info["state"].get("subjects") or {})


@pytest.fixture(params=["", "feature_flags { js_ack_fc_v2: true }"], ids=["ack-v1", "ack-v2"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NatsServer]:
    with guarded_server(tmp_path / "nats", template(), extra=request.param) as running:
        yield running


@pytest.fixture
async def house(server: NatsServer) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        house = House(server, stack)
        await house.prepare(replicas=1)
        yield house


def test_the_durable_of_the_permissions_is_the_one_that_agents_share() -> None:
    assert durable("ledger") == agent_durable("ledger")


async def test_an_agent_does_its_part(house: House) -> None:
    refunds = await house.connect("refunds")
    assert await refunds.publish(subject(Kind.PROPOSAL, "refunds", "shop.v1.Granted"), b"large") == 1
    assert await refunds.publish(subject(Kind.EVENT, "refunds", "shop.v1.Small", event_id=OTHER_ID), b"small") == 2
    await refunds.publish(f"quarantine.-.-.refunds.-.{EVENT_ID}", b"odd")
    assert (await house.connect("desk")).server_version
    await (await house.connect("desk")).publish("key.refund." + "d" * 64, b"flow")
    page = await refunds.direct_get(FLOW, multi_last=[f"flow.refund.{FLOW_ID}.>"])
    assert [message.body for message in page.messages] == [b"large", b"small"]
    last = await refunds.last(FLOW, f"flow.refund.{FLOW_ID}.*.refunds.{EVENT_ID}.>")
    assert last is not None
    assert last.body == b"large"
    info = await refunds.request_json("$JS.API.STREAM.INFO.FLOW", {"subjects_filter": "flow.refund.>"})
    assert len(info["state"]["subjects"]) == 2
    await consume(refunds, expected=1)


async def consume(bus: NatsBus, *, expected: int) -> None:
    """Pull and ack what the agent's durable holds, and see the broker forget it."""
    arrived: asyncio.Queue[Delivery] = asyncio.Queue()
    pull = await bus.pull(FLOW, agent_durable(bus.name), in_flight=10, on_delivery=arrived.put_nowait)
    for _ in range(expected):
        (await asyncio.wait_for(arrived.get(), 10)).ack()
    await eventually(
        partial(bus.request_json, f"$JS.API.CONSUMER.INFO.FLOW.{agent_durable(bus.name)}"),
        lambda info: info["num_ack_pending"] == 0 and info["ack_floor"]["consumer_seq"] == expected,
    )
    await pull.stop()


async def test_an_agent_hears_of_halted_flows(house: House) -> None:
    halted: asyncio.Queue[Message] = asyncio.Queue()
    ledger = await house.connect("ledger")
    await ledger.subscribe(HINT, halted.put_nowait)
    await ledger.connection.flush(SOON)
    (await house.connect("coordinator")).connection.send(HINT, FLOW_ID.encode())
    assert (await asyncio.wait_for(halted.get(), 10)).data == FLOW_ID.encode()


FORBIDDEN = {
    "the released event": subject(Kind.RELEASED, "refunds", "shop.v1.Granted"),
    "the gated type as a plain event": subject(Kind.EVENT, "refunds", "shop.v1.Granted"),
    "a decision": subject(Kind.DECISION, "coordinator", "handrail.v1.ApprovalGiven"),
    "a decision of its own": subject(Kind.DECISION, "refunds", "handrail.v1.ApprovalGiven"),
    "a retry": subject(Kind.RETRY, "ledger", "shop.v1.Granted"),
    "an undo": subject(Kind.UNDO, "ledger", "shop.v1.Paid"),
    "another agent's event": subject(Kind.EVENT, "ledger", "shop.v1.Paid"),
    "another agent's type": subject(Kind.EVENT, "refunds", "shop.v1.Paid"),
    "another agent's failure": subject(Kind.FAILURE, "ledger", "handrail.v1.StepFailed"),
    "a first event": subject(Kind.EVENT, "refunds", "shop.v1.Asked"),
    "another flow type": Address("order", FLOW_ID, Kind.EVENT, "refunds", EVENT_ID, "shop.v1.Small").subject,
    "a timer": timer_subject("refund", FLOW_ID, "deadline"),
    "a due timer": f"due.refund.{FLOW_ID}.deadline",
    "a template": template_subject("refund", 2),
    "an activation": activation_subject("refund", 1),
    "another agent's quarantine": f"quarantine.refund.{FLOW_ID}.ledger.refunds.{EVENT_ID}",
    "what the coordinator says of it": f"quarantine.refund.{FLOW_ID}.coordinator.refunds.{EVENT_ID}",
    "its quarantine's configuration": "$JS.API.STREAM.UPDATE.QUARANTINE_refunds",
    "its quarantine's messages": "$JS.API.STREAM.MSG.DELETE.QUARANTINE_refunds",
    "a key": "key.refund." + "d" * 64,
    "a lease": "$KV.leases.flow.refund." + FLOW_ID,
    "another agent's work": "$JS.API.CONSUMER.MSG.NEXT.FLOW.agent-ledger",
    "another agent's acknowledgement": "$JS.ACK.FLOW.agent-ledger.1.1.1.1.0",
    "another agent's acknowledgement, v2": "$JS.ACK._.RtqtexZK.FLOW.agent-ledger.1.1.1.1.0",
    "the stream's configuration": "$JS.API.STREAM.UPDATE.FLOW",
    "the stream's end": "$JS.API.STREAM.DELETE.FLOW",
    "a purge": "$JS.API.STREAM.PURGE.FLOW",
    "a durable": "$JS.API.CONSUMER.CREATE.FLOW.agent-refunds",
    "a consumer of its own": "$JS.API.CONSUMER.CREATE.FLOW",
    "another agent's inbox": "_INBOX_ledger.x",
}


@pytest.mark.parametrize("what", FORBIDDEN)
async def test_an_agent_is_refused_at_once_p6(house: House, what: str) -> None:
    refunds = await house.connect("refunds")
    before = await house.subjects()
    with pytest.raises(BrokerPermission):
        await refunds.publish(FORBIDDEN[what], b"{}", timeout=SOON)
    assert await house.subjects() == before


@pytest.mark.parametrize(
    "other",
    ["_INBOX_ledger.>", "_INBOX.>", "flow.>", "flow.*.*.proposal.*.*.shop.v1.Granted", "due.>", "$JS.ACK.>", ">"],
)
async def test_an_agent_can_not_listen_elsewhere_p6(house: House, other: str) -> None:
    refunds = await house.connect("refunds")
    with pytest.raises(BrokerPermission):
        await refunds.subscribe(other, lambda message: None)


@pytest.mark.parametrize(
    "headers",
    [
        {"Nats-Rollup": "all"},
        {"Nats-Rollup": "sub"},
        {"Nats-TTL": "1s"},
        {"Nats-Schedule": "@at 2030-01-01T00:00:00Z", "Nats-Schedule-Target": FORBIDDEN["the released event"]},
    ],
    ids=lambda headers: next(iter(headers)) + "-" + next(iter(headers.values()))[:3],
)
async def test_no_header_wipes_hides_or_schedules_p6(house: House, headers: dict[str, str]) -> None:
    refunds = await house.connect("refunds")
    await refunds.publish(subject(Kind.PROPOSAL, "refunds", "shop.v1.Granted"), b"first")
    with pytest.raises(HandrailError):
        await refunds.publish(
            subject(Kind.EVENT, "refunds", "shop.v1.Small", event_id=OTHER_ID), b"x", headers=headers, timeout=SOON
        )
    assert await house.subjects() == {subject(Kind.PROPOSAL, "refunds", "shop.v1.Granted")}


TRACED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_no_trace_of_a_message_is_stored_in_somebodys_name_p6(house: House) -> None:
    """The broker publishes how a message with this header went wherever the header says."""
    refunds = await house.connect("refunds")
    mine, traced = (subject(Kind.EVENT, "refunds", "shop.v1.Small", event_id=each) for each in (OTHER_ID, EVENT_ID))
    for destination in (*FORGED, traced):
        for said in (mine, "$JS.API.STREAM.INFO.FLOW"):
            refunds.connection.send(said, b"", headers={"Nats-Trace-Dest": destination, "traceparent": TRACED})

    async def own_trace_is_stored() -> bool:
        return traced in await house.subjects()

    await eventually(own_trace_is_stored)
    assert await house.subjects() == {mine, traced}


FORGED = (
    subject(Kind.RELEASED, "refunds", "shop.v1.Granted"),
    subject(Kind.EVENT, "ledger", "shop.v1.Paid"),
    subject(Kind.DECISION, "coordinator", "handrail.v1.ApprovalGiven"),
)


@pytest.mark.parametrize("forged", FORGED)
@pytest.mark.parametrize("user", ["refunds", "viewer"])
async def test_no_answer_of_the_broker_is_stored_in_somebodys_name_p6(house: House, user: str, forged: str) -> None:
    """The broker asks no permission for a reply subject: the accounts keep the answer where it belongs."""
    proposal = subject(Kind.PROPOSAL, "refunds", "shop.v1.Granted")
    await (await house.connect("refunds")).publish(proposal, b"pay me")
    forger = await house.connect(user)
    read = json.dumps({"multi_last": [proposal]}).encode()
    forger.connection.send("$JS.API.DIRECT.GET.FLOW", read, reply=forged)
    forger.connection.send(f"$JS.API.DIRECT.GET.FLOW.{proposal}", b"", reply=forged)
    forger.connection.send("$JS.API.STREAM.MSG.GET.FLOW", json.dumps({"seq": 1}).encode(), reply=forged)
    forger.connection.send("$JS.API.STREAM.INFO.FLOW", b"", reply=forged)
    if user == "refunds":
        forger.connection.send("$JS.API.CONSUMER.MSG.NEXT.FLOW.agent-refunds", b"1", reply=forged)
        forger.connection.send(
            subject(Kind.EVENT, "refunds", "shop.v1.Small", event_id=OTHER_ID), b"small", reply=forged
        )
    await forger.connection.flush(SOON)
    # A later request is answered after the earlier ones.
    assert (await forger.direct_get(FLOW, multi_last=[proposal])).messages
    assert forged not in await house.subjects()


async def test_a_viewer_sees_all_and_says_nothing_p6(house: House) -> None:
    viewer = await house.connect("viewer")
    proposal = subject(Kind.PROPOSAL, "refunds", "shop.v1.Granted")
    await (await house.connect("refunds")).publish(proposal, b"large")
    assert (await viewer.direct_get(FLOW, multi_last=["flow.>"])).messages
    for forbidden in (proposal, *FORGED, template_subject("refund", 2), "$JS.API.STREAM.DELETE.FLOW"):
        with pytest.raises(BrokerPermission):
            await viewer.publish(forbidden, b"x", timeout=SOON)
    with pytest.raises(BrokerPermission):
        await viewer.request_json("$JS.API.STREAM.MSG.GET.KV_leases", {"seq": 1}, timeout=SOON)


async def test_the_coordinator_can_not_delete_what_happened_p6(house: House) -> None:
    coordinator = await house.connect("coordinator")
    await coordinator.publish(subject(Kind.DECISION, "coordinator", "handrail.v1.FlowClosed"), b"x")
    for verb in ("DELETE", "PURGE", "MSG.DELETE"):
        with pytest.raises(BrokerPermission):
            await coordinator.request_json(f"$JS.API.STREAM.{verb}.FLOW", {"seq": 1}, timeout=SOON)


STREAMS = sorted(stream_configs())


@pytest.mark.parametrize(
    "verb",
    [
        *(f"STREAM.{verb}.{{stream}}" for verb in ("UPDATE", "DELETE", "MSG.DELETE", "RESTORE", "PEER.REMOVE")),
        *(f"CONSUMER.{verb}.{{stream}}.track" for verb in ("DELETE", "PAUSE", "RESET", "LEADER.STEPDOWN")),
        "STREAM.PURGE.{stream}",
    ],
)
async def test_run_time_changes_and_ends_no_stream_and_ends_and_pauses_no_durable_p2(house: House, verb: str) -> None:
    coordinator = await house.connect("coordinator")
    for stream in STREAMS:
        if (verb, stream) == ("STREAM.PURGE.{stream}", TIMER):
            continue
        with pytest.raises(BrokerPermission):
            await coordinator.request_json(f"$JS.API.{verb.format(stream=stream)}", {}, timeout=SOON)


async def test_set_up_does_its_part_and_publishes_no_message_p2(house: House) -> None:
    bus = await house.connect("setup")
    done = [each async for each in set_up(bus, Wishes(max_bytes={FLOW: 1 << 30}))]
    assert "stream FLOW: max_bytes was -1, is 1073741824" in done
    assert [each async for each in set_up(bus, Wishes())] == []
    for forbidden in (*FORGED, template_subject("refund", 2), "absence.1", "$KV.leases.presence", "key.refund.x"):
        with pytest.raises(BrokerPermission):
            await bus.publish(forbidden, b"{}", timeout=SOON)
    for verb in ("STREAM.DELETE.FLOW", "STREAM.PURGE.FLOW", "STREAM.MSG.DELETE.FLOW", "CONSUMER.DELETE.FLOW.track"):
        with pytest.raises(BrokerPermission):
            await bus.request_json(f"$JS.API.{verb}", {}, timeout=SOON)


async def test_a_scan_leaves_no_consumer_behind(house: House) -> None:
    coordinator = await house.connect("coordinator")
    schedule = {"Nats-Schedule": "@at 2999-01-01T00:00:00Z", "Nats-Schedule-Target": f"due.refund.{FLOW_ID}.x"}
    await coordinator.publish(f"timer.refund.{FLOW_ID}.x", b"1", headers=schedule)
    await coordinator.publish(subject(Kind.EVENT, "refunds", "shop.v1.Small"), b"1")
    before = {name: await consumers(coordinator, name) for name in (FLOW, TIMER)}
    for name, is_queue in ((FLOW, False), (TIMER, True), (TIMER, True)):
        async with scan(coordinator, name, ">" if is_queue else "flow.>", subjects_only=is_queue) as scanning:
            assert sum([len(page) async for page in scanning.pages()]) == 1
    for name, number in before.items():
        await eventually(partial(consumers, coordinator, name), number.__eq__)


async def consumers(bus: NatsBus, stream: str) -> int:
    """How many consumers a stream has."""
    return int((await bus.request_json(f"$JS.API.STREAM.INFO.{stream}"))["state"]["consumer_count"])


async def test_wrong_credentials_are_refused(server: NatsServer, tmp_path: Path) -> None:
    plain = server.settings("refunds")
    stranger, broken = tmp_path / "stranger", tmp_path / "broken"
    stranger.write_text(new_seed())
    broken.write_text("secret")
    for settings, told in (
        (plain, "has no credentials for"),
        (replace(plain, user="refunds", password="x"), 'knows no user "refunds"'),
        (replace(plain, nkey_seed_file=stranger), f"does not know the nkey {public_key(stranger.read_text())} of"),
        (replace(plain, nkey_seed_file=broken), f"{broken} can't be used: it holds no seed"),
    ):
        with pytest.raises(WrongCredentials) as refusal:
            await NatsBus.connect(settings)
        assert told in refusal.value.text
        assert stranger.read_text() not in refusal.value.text
        assert refusal.value.reason_name == "BROKER_PERMISSION"


async def test_a_reload_lets_a_new_agent_in_and_leaves_the_others_alone(tmp_path: Path) -> None:
    with guarded_server(tmp_path, template()) as server:
        async with AsyncExitStack() as stack:
            house = House(server, stack)
            await house.prepare(replicas=1)
            refunds = await house.connect("refunds")
            server.write_config(accounts=configuration(template(), template(2, reviewed=True)))
            server.reload()
            review = await house.connect_once_allowed("review")
            await review.publish(subject(Kind.EVENT, "review", "shop.v1.Reviewed", event_id=OTHER_ID), b"fine")
            await refunds.publish(subject(Kind.PROPOSAL, "refunds", "shop.v1.Granted"), b"large", timeout=SOON)
            await consume(refunds, expected=1)
            assert refunds.connection.client.stats["reconnects"] == 0


async def test_in_a_cluster_an_agent_works_through_any_server(tmp_path: Path) -> None:
    with running_cluster(tmp_path, accounts=configuration(template())) as cluster:
        async with AsyncExitStack() as stack:
            house = House(cluster, stack)
            await house.prepare(replicas=3)
            workers = [await house.connect("refunds", node=node) for node in range(3)]
            handled: asyncio.Queue[int] = asyncio.Queue()

            def handle(delivery: Delivery) -> None:
                delivery.ack()
                handled.put_nowait(delivery.sequence)

            for worker in workers:
                await worker.pull(FLOW, agent_durable("refunds"), in_flight=4, on_delivery=handle)
            for number, worker in enumerate(workers * 10):
                proposal = subject(Kind.PROPOSAL, "refunds", "shop.v1.Granted", event_id=f"{number:032x}")
                sequence = await worker.publish(proposal, b"large")
                page = await worker.direct_get(FLOW, multi_last=[f"flow.refund.{FLOW_ID}.>"])
                # A replica may lag behind the acknowledgement, and says so.
                assert page.up_to_sequence < sequence or proposal in {message.subject for message in page.messages}
                with pytest.raises(BrokerPermission):
                    await worker.publish(FORBIDDEN["the released event"], b"x", timeout=SOON)
            async with asyncio.timeout(20):
                assert {await handled.get() for _ in range(30)} == set(range(1, 31))


async def test_in_a_cluster_a_worker_that_stops_leaves_its_work_to_the_others(tmp_path: Path) -> None:
    with running_cluster(tmp_path, accounts=configuration(template())) as cluster:
        async with AsyncExitStack() as stack:
            house = House(cluster, stack)
            await house.prepare(replicas=3)
            handled: asyncio.Queue[int] = asyncio.Queue()

            def handle(delivery: Delivery) -> None:
                delivery.ack()
                handled.put_nowait(delivery.sequence)

            # One stops at each server: whichever leads the consumer, two of them are elsewhere.
            leavers = [await house.connect("refunds", node=node) for node in range(3)]
            pulls = [
                await leaver.pull(FLOW, agent_durable("refunds"), in_flight=4, on_delivery=handle) for leaver in leavers
            ]
            for leaver in leavers:
                # Its request is there once a later one is answered.
                await leaver.request_json(f"$JS.API.CONSUMER.INFO.FLOW.{agent_durable('refunds')}")
            await asyncio.gather(*(pull.stop() for pull in pulls))
            stayer = await house.connect("refunds")
            await stayer.pull(FLOW, agent_durable("refunds"), in_flight=4, on_delivery=handle)
            for number in range(12):
                proposal = subject(Kind.PROPOSAL, "refunds", "shop.v1.Granted", event_id=f"{number:032x}")
                await stayer.publish(proposal, b"large")
            # Well before the broker would deliver again what a stopped worker had asked for.
            async with asyncio.timeout(10):
                assert {await handled.get() for _ in range(12)} == set(range(1, 13))
