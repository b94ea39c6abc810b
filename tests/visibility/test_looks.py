"""Many flows are read at once, and none is older than the stream's leader has it."""

from __future__ import annotations

import pytest

from handrail.mesh.bus import NatsBus
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.flow_store import FlowStore
from handrail.visibility.retention.looks import Looks, Name
from tests.support.lagging import BehindNatsBus
from tests.support.nats_server import NatsServer
from tests.support.raw_client import raw_client
from tests.support.retained import flow_id


async def stored(bus: NatsBus, flow: Name, *, messages: int) -> list[int]:
    """Stores messages of a flow; returns their sequences."""
    subjects = [f"flow.{flow.flow_type}.{flow.flow_id}.event.shop.{flow_id(n)}.demo.Said" for n in range(messages)]
    return [await bus.publish(each, b"text") for each in subjects]


async def sequences(bus: NatsBus, store: FlowStore, flows: list[Name]) -> dict[Name, list[int]]:
    """What a look finds."""
    found = await Looks(bus, store).messages(flows)
    return {name: [each.sequence for each in messages] for name, messages in found.items()}


@pytest.mark.parametrize("flows, messages", [(1, 3), (250, 2), (30, 100), (3, 1030)])
async def test_all_messages_of_all_flows_are_found(bus: NatsBus, store: FlowStore, flows: int, messages: int) -> None:
    names = [Name("refund", flow_id(number)) for number in range(flows)]
    expected = {name: await stored(bus, name, messages=messages) for name in names}
    await stored(bus, Name("another", flow_id(1)), messages=1)
    absent = Name("another", flow_id(0))
    assert await sequences(bus, store, [*names, absent]) == {**expected, absent: []}


async def test_nothing_is_found_where_nothing_is(bus: NatsBus, store: FlowStore) -> None:
    names = [Name("refund", flow_id(number)) for number in (1, 2)]
    assert await sequences(bus, store, []) == {}
    assert await sequences(bus, store, names) == {names[0]: [], names[1]: []}


@pytest.mark.parametrize("left", [[1], []])
async def test_flows_are_found_without_the_newest_message_of_the_stream(
    bus: NatsBus, store: FlowStore, left: list[int]
) -> None:
    names = [Name("refund", flow_id(number)) for number in (1, 2)]
    expected = {name: await stored(bus, name, messages=2) for name in names}
    for number, name in enumerate(names, 1):
        if number not in left:
            await bus.request_json(f"$JS.API.STREAM.PURGE.{FLOW}", {"filter": f"flow.*.{name.flow_id}.>"})
            expected[name] = []
    assert await sequences(bus, store, names) == expected


@pytest.mark.parametrize("reads", [1, 4])
async def test_p2_a_look_waits_for_a_replica_that_lags(bus: NatsBus, store: FlowStore, reads: int) -> None:
    names = [Name("refund", flow_id(number)) for number in (1, 2)]
    expected = {name: await stored(bus, name, messages=2) for name in names}
    behind = BehindNatsBus(bus.connection)
    behind.lag(as_of=expected[names[0]][0], reads=reads)
    assert await sequences(behind, FlowStore(behind, store.catalog), names) == expected


@pytest.mark.parametrize("subject", ["flow.x", "flow.a.b", "flow.\N{REPLACEMENT CHARACTER}.b"])
async def test_flows_are_found_whatever_the_newest_message_of_the_stream_is(
    bus: NatsBus, store: FlowStore, nats_server: NatsServer, subject: str
) -> None:
    names = [Name("refund", flow_id(number)) for number in (1, 2)]
    expected = {name: await stored(bus, name, messages=2) for name in names}
    async with raw_client(nats_server.url) as stranger:
        await stranger.publish(subject.encode(), b"text")
    assert await sequences(bus, store, names) == expected
