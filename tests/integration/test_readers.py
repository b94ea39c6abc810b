"""Readers receive the messages of their flow types, live and from any sequence, on one server and on three."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from handrail.cli.main import main
from handrail.mesh.bus import NatsBus
from handrail.mesh.bus.protocol import Message
from handrail.mesh.errors import HandrailError
from handrail.mesh.permissions import Reader, reader_durable
from handrail.mesh.streams import FLOW, ensure_streams
from handrail.mesh.streams.durables import ensure_durables
from handrail.mesh.streams.readers import ensure_reader
from handrail.mesh.streams.reading import read
from tests.conftest import Connect
from tests.support import flows
from tests.support.accounts import seed
from tests.support.nats_server import NatsServer, running_cluster, running_server
from tests.support.raw_client import raw_client
from tests.support.readers import READERS, ReadBroker, accounts, prepared, reading, subject
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NatsServer, ...]]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), accounts=accounts()) as running:
        yield running.servers


@pytest.fixture
def one(tmp_path: Path) -> Iterator[tuple[NatsServer, ...]]:
    with running_server(tmp_path / "nats", accounts=accounts()) as running:
        yield (running,)


@pytest.fixture(params=["one", "cluster"])
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[ReadBroker]:
    async with prepared(request.getfixturevalue(request.param)) as broker:
        yield broker


async def config(bus: NatsBus, reader: str) -> dict[str, Any]:
    info = await bus.request_json(f"$JS.API.CONSUMER.INFO.{FLOW}.{reader_durable(reader)}")
    found: dict[str, Any] = info["config"]
    return found


async def test_a_reader_gets_all_of_its_flow_types_and_then_what_comes(broker: ReadBroker) -> None:
    stored = await broker.store_many(600, "refund", "loan", "other")
    async with reading(await broker.connect("analytics")) as found, reading(await broker.connect("archive")) as both:
        await until(lambda: len(found) == 200 and len(both) == 400)
        stored += await broker.store_many(6, "refund", "loan", "other")
        await until(lambda: len(found) == 202 and len(both) == 404)
    assert found == [each for each in stored if each.subject.startswith("flow.refund.")]
    assert both == [each for each in stored if not each.subject.startswith("flow.other.")]


async def test_a_reader_goes_on_behind_any_sequence(broker: ReadBroker) -> None:
    stored = await broker.store_many(20, "refund", "loan")
    analytics = await broker.connect("analytics")
    for after in (stored[9].sequence, 0, stored[-1].sequence - 2):
        async with reading(analytics, after=after) as found:
            wanted = [each for each in stored[::2] if each.sequence > after]
            await until(lambda wanted=wanted, found=found: len(found) == len(wanted))  # type: ignore[misc]
        assert found == wanted


async def test_every_reader_gets_everything(broker: ReadBroker) -> None:
    stored = await broker.store_many(10, "refund")
    async with reading(await broker.connect("analytics")) as one, reading(await broker.connect("watcher")) as other:
        await until(lambda: len(one) == len(other) == 10)
    assert one == other == stored


async def test_p2_what_got_lost_on_its_way_is_read_again(broker: ReadBroker) -> None:
    """Somebody else pulls under the same name, once: the deliveries to it don't come."""
    analytics = await broker.connect("analytics")
    stolen: list[Message] = []
    await analytics.subscribe("_INBOX_analytics.thief", stolen.append)
    stored = [await broker.store("refund")]
    async with reading(analytics) as found:
        await until(lambda: len(found) == 1)
        steal(analytics, 3)
        stored += await broker.store_many(20, "refund")
        await until(lambda: len(found) >= len(stored))
    assert found == stored
    assert any(message.reply for message in stolen)


async def test_p2_the_newest_message_may_get_lost_too(broker: ReadBroker) -> None:
    """No later delivery shows it."""
    analytics = await broker.connect("analytics")
    stolen: list[Message] = []
    await analytics.subscribe("_INBOX_analytics.thief", stolen.append)
    stored = [await broker.store("refund")]
    async with reading(analytics) as found:
        await until(lambda: found)
        while not any(message.reply for message in stolen):
            steal(analytics, 1)
            stored.append(await broker.store("refund"))
            await until(lambda: len(found) >= len(stored))
    assert found == stored


def steal(analytics: NatsBus, number: int) -> None:
    """Asks for some deliveries, beside the reader."""
    body = b'{"batch":%d,"expires":1000000000}' % number
    analytics.connection.send("$JS.API.CONSUMER.MSG.NEXT.FLOW.reader-analytics", body, reply="_INBOX_analytics.thief")


async def test_p2_an_empty_message_hides_no_others(broker: ReadBroker) -> None:
    """Across accounts, the broker takes it for the end of all answers."""
    stored = [await broker.store("refund")]
    async with reading(await broker.connect("analytics")) as found:
        for _ in range(3):
            stored.append(await broker.store("refund", body=b""))
            stored += await broker.store_many(3, "refund")
        await until(lambda: len(found) >= len(stored))
    assert found == stored


async def test_p6_an_agents_empty_messages_stop_no_reader(broker: ReadBroker) -> None:
    """The first one costs a pause and a reset, the others nothing."""
    admin, url = await broker.connect("admin"), broker.servers[0].url
    async with (
        raw_client(url, user="desk", nkey_seed=seed("desk")) as desk,
        reading(await broker.connect("analytics")) as found,
    ):
        sent = [await desk.publish(subject("refund", number), b"") for number in range(50)]
        await until(lambda: len(found) >= len(sent))
    assert [each.sequence for each in found] == sent
    assert await delivered(admin) == len(sent) - 1, "deliveries are counted from the latest reset on"


async def delivered(bus: NatsBus) -> int:
    """How many messages were delivered to `analytics` since its latest reset."""
    info = await bus.request_json(f"$JS.API.CONSUMER.INFO.{FLOW}.{reader_durable('analytics')}")
    return int(info["delivered"]["consumer_seq"])


async def test_a_reader_outlives_the_servers_that_it_reads_from(broker: ReadBroker) -> None:
    stored = await broker.store_many(20, "refund")
    async with reading(await broker.connect("analytics")) as found:
        await until(lambda: len(found) == 20)
        for server in broker.servers:
            server.kill()
            server.ensure_running()
            stored += await broker.store_many(5, "refund")
        await until(lambda: len(found) >= len(stored), within=90)
    assert found == stored


async def test_setting_up_a_reader_again_changes_nothing(broker: ReadBroker) -> None:
    setup = await broker.connect("setup")
    before = await config(setup, "analytics")
    assert await ensure_reader(setup, READERS[0]) == ""
    assert await config(setup, "analytics") == before
    assert before["ack_policy"] == "none"


async def test_a_reader_may_get_other_flow_types(broker: ReadBroker) -> None:
    setup = await broker.connect("setup")
    done = await ensure_reader(setup, Reader("analytics", ("loan", "refund")))
    assert done == "durable reader-analytics: delivers flow.loan.>, flow.refund.>"
    assert (await config(setup, "analytics"))["filter_subjects"] == ["flow.loan.>", "flow.refund.>"]
    await ensure_reader(setup, Reader("analytics", ("loan",)))
    await broker.store("refund")
    loan = await broker.store("loan")
    async with reading(await broker.connect("analytics")) as found:
        await until(lambda: found)
    assert found == [loan]


async def test_a_durable_that_is_no_readers_is_left_alone(broker: ReadBroker) -> None:
    setup = await broker.connect("setup")
    taken = {"durable_name": "reader-taken", "ack_policy": "explicit"}
    await setup.request_json("$JS.API.CONSUMER.CREATE.FLOW.reader-taken", {"stream_name": FLOW, "config": taken})
    with pytest.raises(HandrailError, match="reader-taken exists and is no reader's"):
        await ensure_reader(setup, Reader("taken", ("refund",)))
    assert (await config(setup, "taken"))["ack_policy"] == "explicit"


async def test_a_reader_without_a_durable_is_told_how_to_make_one(broker: ReadBroker) -> None:
    admin = await broker.connect("admin")
    await admin.request_json("$JS.API.CONSUMER.DELETE.FLOW.reader-analytics")
    with pytest.raises(HandrailError, match="handrail admin reader"):
        await anext(read(await broker.connect("analytics"), "analytics"))


async def test_the_coordinator_leaves_readers_alone(broker: ReadBroker) -> None:
    coordinator = await broker.connect("coordinator")
    before = [await config(coordinator, reader.name) for reader in READERS]
    await ensure_durables(coordinator, [flows.template()])
    await ensure_streams(coordinator, replicas=len(broker.servers))
    assert [await config(coordinator, reader.name) for reader in READERS] == before


async def test_the_command_creates_the_durable_of_a_reader(
    nats_server: NatsServer, connect: Connect, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await ensure_streams(await connect(nats_server.settings("coordinator")))
    monkeypatch.setenv("HANDRAIL_NATS", nats_server.url)
    command = ["admin", "reader", "analytics", "--flow-type", "refund", "--flow-type", "loan"]
    assert await asyncio.to_thread(main, command) == 0
    assert capsys.readouterr().out == "durable reader-analytics: delivers flow.loan.>, flow.refund.>\n"
    assert await asyncio.to_thread(main, command) == 0
    assert capsys.readouterr().out == "nothing to change\n"
    assert await asyncio.to_thread(main, ["admin", "reader", "coordinator", "--flow-type", "refund"]) == 1
    assert 'no reader may have the name "coordinator"' in capsys.readouterr().err
