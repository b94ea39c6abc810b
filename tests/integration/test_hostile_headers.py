"""What an agent writes into headers and subjects of messages that it may publish blinds no reader, of any kind."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from handrail.coordinator.lists.bulk_read import scan
from handrail.mesh.bus import Delivery, NatsBus, fresh_read
from handrail.mesh.bus.expectation import expecting, last_before
from handrail.mesh.bus.protocol import header_block
from handrail.mesh.streams import FLOW, ensure_streams, stream_walk
from handrail.mesh.streams.durables import agent_durable
from handrail.mesh.wire.subjects import filter_for, flow_filter
from tests.support.accounts import asked_and_granted, connect, guarded_server, seed
from tests.support.hostile import FORMS, TOKENS, forged_expectations
from tests.support.nats_server import NatsServer
from tests.support.raw_client import RawClient, raw_client
from tests.support.waiting import until

FLOW_ID = "a" * 32
LAST = f"flow.refund.{FLOW_ID}.event.refunds.{'f' * 32}.shop.v1.Granted"

Place = tuple[int, bytes]
Reader = Callable[[NatsBus], Awaitable[list[Place]]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with guarded_server(tmp_path / "nats", asked_and_granted()) as running:
        yield running


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[NatsBus]:
    """The coordinator's bus, with the streams and the agent's durable there."""
    async with await connect(server, "coordinator") as bus:
        await ensure_streams(bus)
        config = {
            "durable_name": agent_durable("refunds"),
            "ack_policy": "explicit",
            "ack_wait": 2_000_000_000,
            "filter_subject": "flow.>",
        }
        await bus.request_json(
            f"$JS.API.CONSUMER.CREATE.{FLOW}.{agent_durable('refunds')}", {"stream_name": FLOW, "config": config}
        )
        yield bus


@pytest.fixture
async def agent(server: NatsServer) -> AsyncIterator[RawClient]:
    """The agent `refunds`, with its own permissions and no client library."""
    async with raw_client(server.url, user="refunds", nkey_seed=seed("refunds")) as client:
        yield client


async def by_multi_last(bus: NatsBus) -> list[Place]:
    page = await bus.direct_get(FLOW, multi_last=["flow.>"])
    assert page.up_to_sequence == page.messages[-1].sequence
    return [(message.sequence, message.body) for message in page.messages]


async def by_batches(bus: NatsBus) -> list[Place]:
    return [(message.sequence, message.body) async for message in stream_walk.oldest_first(bus, FLOW, "flow.>")]


async def by_single_batches(bus: NatsBus) -> list[Place]:
    found: list[Place] = []
    pending = 1
    while pending:
        page = await bus.read_forward(FLOW, "flow.>", from_sequence=len(found) + 1, limit=1)
        found += [(message.sequence, message.body) for message in page.messages]
        pending = page.pending
    return found


async def backwards(bus: NatsBus) -> list[Place]:
    return [(message.sequence, message.body) async for message in stream_walk.newest_first(bus, FLOW, ["flow.>"])][::-1]


async def by_sequence(bus: NatsBus) -> list[Place]:
    found: list[Place] = []
    while (message := await bus.by_sequence(FLOW, len(found) + 1)) is not None:
        found.append((message.sequence, message.body))
    return found


async def by_subject(bus: NatsBus) -> list[Place]:
    page = await bus.direct_get(FLOW, multi_last=["flow.>"])
    found = [await bus.last(FLOW, filter_for(message.subject)) for message in page.messages]
    return [(message.sequence, message.body) for message in found if message is not None]


async def on_the_leader(bus: NatsBus) -> list[Place]:
    page = await bus.direct_get(FLOW, multi_last=["flow.>"])
    found = [await bus.last_on_leader(FLOW, filter_for(message.subject)) for message in page.messages]
    return [(message.sequence, message.body) for message in found if message is not None]


async def by_pull(bus: NatsBus) -> list[Place]:
    """What is in transit behind an empty message comes again after the ack wait, as does what is not acknowledged."""
    last = await bus.last(FLOW, LAST)
    assert last is not None
    found: dict[int, bytes] = {}

    def on_delivery(delivery: Delivery) -> None:
        found[delivery.sequence] = delivery.body
        delivery.ack()

    pull = await bus.pull(FLOW, agent_durable("refunds"), in_flight=4, on_delivery=on_delivery)
    await until(lambda: len(found) == last.sequence)
    await pull.stop()
    return sorted(found.items())


async def by_scan(bus: NatsBus) -> list[Place]:
    last = await bus.last(FLOW, LAST)
    assert last is not None
    async with scan(bus, FLOW, "flow.>", up_to=last.sequence) as scanning:
        return [(stored.sequence, stored.body) async for page in scanning.pages() for stored in page]


EVERYBODY: dict[str, Reader] = {
    "multi_last": by_multi_last,
    "batches": by_batches,
    "batches of one": by_single_batches,
    "newest first": backwards,
    "single, by sequence": by_sequence,
}
OTHERS: dict[str, Reader] = {
    "single, by subject": by_subject,
    "MSG.GET": on_the_leader,
    "pull": by_pull,
    "scan": by_scan,
}


@pytest.mark.parametrize("empty", [True, False], ids=["empty", "with a body"])
async def test_no_header_changes_what_a_reader_finds(
    server: NatsServer, bus: NatsBus, agent: RawClient, empty: bool
) -> None:
    for number, headers in enumerate(FORMS.values()):
        subject = f"flow.refund.{FLOW_ID}.event.refunds.{number:032x}.shop.v1.Granted"
        await agent.publish(subject, b"" if empty else b"%d" % number, headers=headers)
    stored = await everything(agent, up_to=await agent.publish(LAST, b"last"))
    readers = {**EVERYBODY, **OTHERS}
    assert await what_each_finds(bus, readers) == dict.fromkeys(readers, stored)
    async with await connect(server, "refunds") as agents_bus:
        assert await what_each_finds(agents_bus, EVERYBODY) == dict.fromkeys(EVERYBODY, stored)


async def test_p4_no_header_says_that_a_message_follows_another_than_it_does(bus: NatsBus, agent: RawClient) -> None:
    subjects, others = flow_filter("refund", FLOW_ID), flow_filter("refund", "b" * 32)
    found: list[Delivery] = []
    await agent.publish(f"flow.refund.{FLOW_ID}.event.refunds.{'e' * 32}.shop.v1.Granted", b"first")
    skipped = await agent.publish(f"flow.refund.{FLOW_ID}.event.refunds.{'d' * 32}.shop.v1.Granted", b"second")
    forged = [*forged_expectations(subjects, skipped - 1, others).values(), *FORMS.values()]
    exact = header_block(expecting(None, skipped - 1, subjects))
    for number, block in enumerate([*forged, exact]):
        subject = f"flow.refund.{FLOW_ID}.event.refunds.{number:032x}.shop.v1.Granted"
        await agent.request(subject, b"%d" % number, headers=block)  # the broker refuses some
    true = header_block(expecting(None, await fresh_read.newest(bus, FLOW, subjects), subjects))
    last = await agent.publish(LAST, b"last", headers=true)

    def on_delivery(delivery: Delivery) -> None:
        found.append(delivery)
        delivery.ack()

    pull = await bus.pull(FLOW, agent_durable("refunds"), in_flight=100, on_delivery=on_delivery)
    await until(lambda: found and found[-1].subject == LAST)
    await pull.stop()
    proven = {each.sequence: before for each in found if (before := last_before(each.block, subjects))}
    assert proven == {last: found[-2].sequence}


async def test_no_subject_stops_a_reader(server: NatsServer, bus: NatsBus, agent: RawClient) -> None:
    for token in TOKENS.values():
        subjects = (
            b"flow.refund.%b.event.refunds.%b.shop.v1.Granted" % (token, b"b" * 32),
            b"flow.refund.%b.event.refunds.%b.shop.v1.Granted" % (FLOW_ID.encode(), token),
        )
        for subject in subjects:
            await agent.publish(subject, b"odd")
    stored = await everything(agent, up_to=await agent.publish(LAST, b"last"))
    readers = {**EVERYBODY, "scan": by_scan}
    assert await what_each_finds(bus, readers) == dict.fromkeys(readers, stored)
    async with await connect(server, "refunds") as agents_bus:
        readers = {**EVERYBODY, "pull": by_pull}
        assert await what_each_finds(agents_bus, readers) == dict.fromkeys(readers, stored)


async def everything(agent: RawClient, *, up_to: int) -> list[Place]:
    """What the stream holds, asked for one by one and by hand.

    The broker itself moves bytes from a block without an end into the body, where it hands it from account to account.
    """
    found: list[Place] = []
    for sequence in range(1, up_to + 1):
        answer = json.loads(await agent.request("$JS.API.STREAM.MSG.GET.FLOW", b'{"seq": %d}' % sequence))
        found.append((sequence, b64decode(answer["message"].get("data", ""))))
    return found


async def what_each_finds(bus: NatsBus, readers: dict[str, Reader]) -> dict[str, list[Place]]:
    return {name: await asyncio.wait_for(reader(bus), 60) for name, reader in readers.items()}
