"""Setting up the streams on a real server."""

import asyncio
from typing import Any

import pytest

from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import (
    ABSENCE,
    AUDIT,
    DELEGATION,
    FLOW,
    KEY,
    LEASES,
    QUARANTINE,
    TEMPLATE,
    TIMER,
    WORKER,
    ensure_streams,
)
from handrail.v1.error_reason_pb2 import ErrorReason
from tests.conftest import Connect
from tests.support.nats_server import NatsServer

HOUR = 3600 * 1_000_000_000
STREAMS = {FLOW, TIMER, TEMPLATE, QUARANTINE, KEY, ABSENCE, AUDIT, DELEGATION, LEASES, WORKER}


@pytest.fixture
async def empty(nats_server: NatsServer, connect: Connect) -> NatsBus:
    return await connect(nats_server.settings())


async def names(bus: NatsBus) -> set[str]:
    return set((await bus.request_json("$JS.API.STREAM.NAMES"))["streams"])


async def config(bus: NatsBus, stream: str) -> dict[str, Any]:
    answer: dict[str, Any] = (await bus.request_json(f"$JS.API.STREAM.INFO.{stream}"))["config"]
    return answer


async def update(bus: NatsBus, stream: str, **fields: object) -> None:
    """Changes a stream as an operator may with the broker's own tools."""
    await bus.request_json(f"$JS.API.STREAM.UPDATE.{stream}", {**await config(bus, stream), **fields})


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


async def test_what_is_recorded_can_not_be_deleted(bus: NatsBus) -> None:
    sequence = await bus.publish("flow.refund.f", b"kept")
    assert await refused(bus, f"$JS.API.STREAM.MSG.DELETE.{FLOW}", {"seq": sequence})
    for stream in (TEMPLATE, KEY, AUDIT):
        assert await refused(bus, f"$JS.API.STREAM.PURGE.{stream}", {})
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


@pytest.mark.parametrize(
    "stream,field,value,why",
    [
        (FLOW, "max_age", HOUR, r"max_age is 3600 s, not 0 \(messages would expire"),
        (FLOW, "subjects", ["flow.>", "orders.>"], "subjects is"),
        (KEY, "allow_msg_ttl", True, "allow_msg_ttl is True"),
        (QUARANTINE, "republish", {"src": ">", "dest": "copy.>"}, "republish is"),
        (TIMER, "max_msgs", 10, "max_msgs is 10, not -1"),
    ],
)
async def test_p2_what_breaks_a_promise_stops_the_start_and_is_left_alone(
    bus: NatsBus, stream: str, field: str, value: object, why: str
) -> None:
    await update(bus, stream, **{field: value})
    before = await config(bus, stream)
    with pytest.raises(HandrailError, match=why) as refusal:
        await ensure_streams(bus)
    assert refusal.value.metadata == {"stream": stream, "fields": field}
    assert refusal.value.text.endswith(f"`handrail admin setup --reset {stream}` mends it")
    assert await config(bus, stream) == before


@pytest.mark.parametrize("made", ["2", "x"])
async def test_p2_a_stream_of_a_newer_release_stops_the_start(bus: NatsBus, made: str) -> None:
    await update(bus, FLOW, metadata={"handrail": made})
    with pytest.raises(HandrailError, match=r"FLOW was made by a newer release .*: upgrade this process"):
        await ensure_streams(bus)


async def test_what_is_an_operators_is_left_alone(bus: NatsBus) -> None:
    await update(bus, FLOW, max_bytes=1 << 30, description="the flows", compression="s2")
    await update(bus, FLOW, deny_purge=True)  # as streams of earlier releases have it
    aging = {WORKER: HOUR, KEY: 24 * 30 * HOUR, AUDIT: HOUR}
    for stream, age in aging.items():
        await update(bus, stream, max_age=age)
    before = [await config(bus, name) for name in (FLOW, *aging)]
    await ensure_streams(bus)
    assert before == [await config(bus, name) for name in (FLOW, *aging)]


async def test_streams_that_agents_fill_have_a_limit_at_first(bus: NatsBus) -> None:
    limits = {name: (await config(bus, name))["max_bytes"] for name in STREAMS}
    assert {name for name, limit in limits.items() if limit > 0} == {KEY, QUARANTINE, AUDIT, WORKER}


async def test_flow_is_stored_in_files_of_8_mb_because_each_passage_to_the_next_is_dear(
    bus: NatsBus, nats_server: NatsServer
) -> None:
    payload = b"x" * (1 << 19)
    for number in range(14):
        await bus.publish(f"flow.big.F.event.a.{number}.big.v1.Big", payload)
    assert len(list((nats_server.folder / nats_server.name).rglob("streams/FLOW/msgs/*.blk"))) == 1


async def test_more_replicas_than_servers_are_refused(empty: NatsBus) -> None:
    with pytest.raises(HandrailError, match="replicas"):
        await ensure_streams(empty, replicas=3)


async def test_other_replicas_than_wanted_are_told_and_left_alone(
    bus: NatsBus, caplog: pytest.LogCaptureFixture
) -> None:
    await ensure_streams(bus, replicas=3)
    assert "stream FLOW has 1 replicas, not 3: `handrail admin setup --replicas 3` changes it" in caplog.text
    assert (await config(bus, FLOW))["num_replicas"] == 1
