"""Setting up the streams on a real server."""

import asyncio
from typing import Any

import pytest

from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import (
    ABSENCE,
    DELEGATION,
    FLOW,
    KEY,
    LEASES,
    QUARANTINE,
    TEMPLATE,
    TIMER,
    WORKER,
    FlowLimits,
    ensure_streams,
)
from handrail.v1.error_reason_pb2 import ErrorReason
from tests.conftest import Connect
from tests.support.nats_server import NatsServer

STREAMS = {FLOW, TIMER, TEMPLATE, QUARANTINE, KEY, ABSENCE, DELEGATION, LEASES, WORKER}


@pytest.fixture
async def empty(nats_server: NatsServer, connect: Connect) -> NatsBus:
    return await connect(nats_server.settings())


async def names(bus: NatsBus) -> set[str]:
    return set((await bus.request_json("$JS.API.STREAM.NAMES"))["streams"])


async def config(bus: NatsBus, stream: str) -> dict[str, Any]:
    answer: dict[str, Any] = (await bus.request_json(f"$JS.API.STREAM.INFO.{stream}"))["config"]
    return answer


async def refused(bus: NatsBus, operation: str, payload: dict[str, Any]) -> bool:
    try:
        await bus.request_json(operation, payload)
    except HandrailError:
        return True
    return False


async def test_one_call_creates_every_stream(empty: NatsBus) -> None:
    await ensure_streams(empty)
    assert await names(empty) == STREAMS


async def test_a_second_call_changes_nothing(empty: NatsBus) -> None:
    await ensure_streams(empty)
    await empty.publish("flow.refund.f", b"kept")
    before = [await config(empty, name) for name in (FLOW, TIMER, LEASES)]
    await ensure_streams(empty)
    assert before == [await config(empty, name) for name in (FLOW, TIMER, LEASES)]
    assert await empty.last(FLOW, "flow.>") is not None


async def test_replicas_that_start_at_once_agree(nats_server: NatsServer, connect: Connect) -> None:
    buses = [await connect(nats_server.settings(f"coordinator{number}")) for number in range(4)]
    await asyncio.gather(*(ensure_streams(bus) for bus in buses))
    assert await names(buses[0]) == STREAMS


async def test_what_is_recorded_can_be_neither_deleted_nor_purged(bus: NatsBus) -> None:
    sequence = await bus.publish("flow.refund.f", b"kept")
    assert await refused(bus, f"$JS.API.STREAM.MSG.DELETE.{FLOW}", {"seq": sequence})
    assert await refused(bus, f"$JS.API.STREAM.PURGE.{FLOW}", {})
    for header in ({"Nats-Rollup": "all"}, {"Nats-TTL": "1s"}, {"Nats-Schedule": "@every 1s"}):
        with pytest.raises(HandrailError):
            await bus.publish("flow.refund.g", b"", headers=header)
    assert await bus.by_sequence(FLOW, sequence) is not None


async def test_a_foreign_stream_is_refused_with_what_differs(empty: NatsBus) -> None:
    await empty.request_json(f"$JS.API.STREAM.CREATE.{FLOW}", {"name": FLOW, "subjects": ["orders.>"]})
    with pytest.raises(HandrailError, match=r"subjects is \['orders\.>'\], not \['flow\.>'\]") as refusal:
        await ensure_streams(empty)
    assert refusal.value.reason == ErrorReason.ERROR_REASON_FOREIGN_STREAM
    assert refusal.value.metadata["stream"] == FLOW
    assert (await config(empty, FLOW))["subjects"] == ["orders.>"]


async def test_a_foreign_stream_on_our_subjects_is_refused(empty: NatsBus) -> None:
    await empty.request_json("$JS.API.STREAM.CREATE.OTHER", {"name": "OTHER", "subjects": ["flow.>"]})
    with pytest.raises(HandrailError, match="stream OTHER already takes flow") as refusal:
        await ensure_streams(empty)
    assert refusal.value.reason == ErrorReason.ERROR_REASON_FOREIGN_STREAM


async def test_a_stream_of_ours_that_was_tampered_with_is_put_right(bus: NatsBus) -> None:
    tampered = {**await config(bus, QUARANTINE), "discard": "old", "discard_new_per_subject": False}
    await bus.request_json(f"$JS.API.STREAM.UPDATE.{QUARANTINE}", tampered)
    await ensure_streams(bus)
    assert (await config(bus, QUARANTINE))["discard_new_per_subject"] is True


async def test_settings_that_are_an_operators_are_left_alone(bus: NatsBus) -> None:
    tuned = {**await config(bus, FLOW), "max_bytes": 1 << 30, "description": "the flows", "compression": "s2"}
    await bus.request_json(f"$JS.API.STREAM.UPDATE.{FLOW}", tuned)
    await ensure_streams(bus)
    after = await config(bus, FLOW)
    assert (after["max_bytes"], after["description"], after["compression"]) == (1 << 30, "the flows", "s2")


async def test_limits_are_set_and_changed(bus: NatsBus) -> None:
    await ensure_streams(bus, limits=FlowLimits(max_bytes=1 << 20, max_messages=10))
    await ensure_streams(bus, limits=FlowLimits(max_messages=20))
    after = await config(bus, FLOW)
    assert (after["max_bytes"], after["max_msgs"]) == (1 << 20, 20)


async def test_more_replicas_than_servers_are_refused(empty: NatsBus) -> None:
    with pytest.raises(HandrailError, match="replicas"):
        await ensure_streams(empty, replicas=3)
