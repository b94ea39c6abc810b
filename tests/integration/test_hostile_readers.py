"""P6: a reader reads nothing but its flow types, says nothing, and harms nobody; and no agent misleads a reader."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from handrail.mesh.bus import NatsBus
from handrail.mesh.bus.protocol import Message
from handrail.mesh.errors import BrokerPermission
from handrail.mesh.streams import FLOW
from tests.support.accounts import seed
from tests.support.hostile import FORMS, TOKENS
from tests.support.nats_server import NatsServer, running_server
from tests.support.raw_client import raw_client
from tests.support.readers import ReadBroker, accounts, prepared, reading, subject
from tests.support.waiting import until

SOON = timedelta(seconds=5)
NEXT = "$JS.API.CONSUMER.MSG.NEXT.FLOW.reader-analytics"
RESET = "$JS.API.CONSUMER.RESET.FLOW.reader-analytics"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with running_server(tmp_path / "nats", accounts=accounts()) as running:
        yield running


@pytest.fixture
async def broker(server: NatsServer) -> AsyncIterator[ReadBroker]:
    async with prepared([server]) as broker:
        yield broker


async def consumers(bus: NatsBus) -> list[dict[str, Any]]:
    """The configuration of all durables on FLOW, and where each is."""
    listed = await bus.request_json(f"$JS.API.CONSUMER.LIST.{FLOW}")
    return [{key: each[key] for key in ("name", "config", "delivered")} for each in listed["consumers"]]


@pytest.mark.parametrize(
    "request_",
    [
        "CONSUMER.CREATE.FLOW",
        "CONSUMER.CREATE.FLOW.reader-analytics",
        "CONSUMER.CREATE.FLOW.reader-analytics.flow.>",
        "CONSUMER.DURABLE.CREATE.FLOW.reader-analytics",
        "CONSUMER.DELETE.FLOW.reader-analytics",
        "CONSUMER.PAUSE.FLOW.reader-analytics",
        "CONSUMER.RESET.FLOW.reader-archive",
        "CONSUMER.RESET.FLOW.track",
        "CONSUMER.INFO.FLOW.reader-archive",
        "CONSUMER.LIST.FLOW",
        "CONSUMER.MSG.NEXT.FLOW.reader-archive",
        "CONSUMER.MSG.NEXT.FLOW.agent-refunds",
        "DIRECT.GET.FLOW",
        "DIRECT.GET.FLOW.flow.loan.>",
        "STREAM.INFO.FLOW",
        "STREAM.MSG.GET.FLOW",
        "STREAM.PURGE.FLOW",
        "STREAM.UPDATE.FLOW",
    ],
)
async def test_p6_a_reader_manages_nothing_and_reads_no_other_way(broker: ReadBroker, request_: str) -> None:
    admin, analytics = await broker.connect("admin"), await broker.connect("analytics")
    await broker.store("loan")
    before = await consumers(admin)
    body = {"stream_name": FLOW, "config": {"durable_name": "reader-analytics", "ack_policy": "none"}, "seq": 1}
    with pytest.raises(BrokerPermission):
        await analytics.request_json(f"$JS.API.{request_}", body, timeout=SOON)
    assert await consumers(admin) == before


@pytest.mark.parametrize(
    "heard",
    [
        ">",
        "*.>",
        "flow.>",
        "flow.refund.>",
        "seen.>",
        "seen.*.>",
        "seen.loan.>",
        "_INBOX.>",
        "_INBOX_watcher.>",
        "$JS.>",
    ],
)
async def test_p6_a_reader_hears_nothing_else(broker: ReadBroker, heard: str) -> None:
    with pytest.raises(BrokerPermission):
        await (await broker.connect("analytics")).subscribe(heard, lambda message: None)


@pytest.mark.parametrize("said", [subject("refund", 7), "seen." + subject("refund", 7).removeprefix("flow."), "x"])
async def test_p6_a_reader_says_nothing(broker: ReadBroker, said: str) -> None:
    with pytest.raises(BrokerPermission):
        await (await broker.connect("analytics")).publish(said, b"x", timeout=SOON)
    last = await broker.store("refund")
    async with reading(await broker.connect("watcher")) as found:
        await until(lambda: found)
    assert found == [last]


async def test_p6_no_answer_to_a_reader_reaches_others(broker: ReadBroker) -> None:
    """The broker asks no permission for a reply subject: the accounts keep the answer where it belongs."""
    stored = await broker.store_many(20, "refund")
    watcher, analytics = await broker.connect("watcher"), await broker.connect("analytics")
    heard: list[Message] = []
    await watcher.subscribe("_INBOX_watcher.x.>", heard.append)
    forged = (subject("refund", 99), "_INBOX_watcher.x.y", "$JS.API.STREAM.PURGE.FLOW")
    for reply in forged:
        analytics.connection.send(RESET, b'{"seq":1}', reply=reply)
        analytics.connection.send(NEXT, b"3", reply=reply)
        analytics.connection.send("$JS.API.INFO", b"", reply=reply)
        headers = {"Nats-Trace-Dest": reply}
        analytics.connection.send("$JS.API.INFO", b"", reply="_INBOX_analytics.z", headers=headers)
    await analytics.request_json(RESET, {"seq": 1})
    await watcher.connection.flush(SOON)
    stored.append(await broker.store("refund"))
    async with reading(await broker.connect("archive")) as found:
        await until(lambda: len(found) >= len(stored))
    assert found == stored
    assert heard == []


async def test_p6_a_reset_does_nothing_but_move(broker: ReadBroker) -> None:
    """Whatever else its body says."""
    admin, analytics = await broker.connect("admin"), await broker.connect("analytics")
    stored = await broker.store_many(4, "refund", "loan")
    before = await consumers(admin)
    body = {
        "seq": 1,
        "config": {"filter_subject": "flow.>", "ack_policy": "explicit", "deliver_subject": subject("refund", 99)},
        "filter_subjects": ["flow.>"],
        "stream_name": "TEMPLATE",
        "name": "reader-archive",
    }
    await analytics.request_json(RESET, body)
    assert await consumers(admin) == before
    async with reading(analytics) as found:
        await until(lambda: len(found) == 2)
    assert found == stored[::2]


@pytest.mark.parametrize("user", ["desk", "coordinator"])
async def test_p2_no_header_or_subject_misleads_a_reader_or_ends_the_broker(
    broker: ReadBroker, server: NatsServer, user: str
) -> None:
    """Whether it comes through another account, which adds a header, or from the one with the streams."""
    sent: list[int] = []
    analytics = await broker.connect("analytics")
    async with raw_client(server.url, user=user, nkey_seed=seed(user)) as hostile, reading(analytics) as found:
        for number, form in enumerate(FORMS.values()):
            sent.append(await hostile.publish(subject("refund", number), b"body", headers=form))
        for token in TOKENS.values():
            sent.append(await hostile.publish(b"flow.refund.%b.event.desk.%b.shop.v1.Asked" % (token, token), b"odd"))
        await until(lambda: len(found) >= len(sent))
    page = await (await broker.connect("admin")).read_forward(FLOW, "flow.>", from_sequence=1, limit=99)
    assert found == [message._replace(block=b"") for message in page.messages]
    assert [message.sequence for message in found] == sent
