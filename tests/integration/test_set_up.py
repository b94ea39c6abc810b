"""Set-up on a real server: it creates and upgrades, tells each change, and resets only what it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from handrail.cli.main import main
from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import FLOW, KEY, QUARANTINE, TIMER, WORKER, ensure_streams, streams
from handrail.mesh.streams.durables import ensure_durables
from handrail.mesh.streams.set_up import Wishes, set_up
from tests.conftest import Connect
from tests.support import flows
from tests.support.mesh import Mesh
from tests.support.nats_server import NatsCluster, NatsServer

HOUR = 3600 * 1_000_000_000
NOTHING = Wishes()


async def told(bus: NatsBus, wishes: Wishes = NOTHING) -> list[str]:
    """What a set-up says that it changed."""
    return [each async for each in set_up(bus, wishes)]


async def config(bus: NatsBus, stream: str, durable: str = "") -> dict[str, Any]:
    what = f"CONSUMER.INFO.{stream}.{durable}" if durable else f"STREAM.INFO.{stream}"
    answer: dict[str, Any] = (await bus.request_json(f"$JS.API.{what}"))["config"]
    return answer


async def update(bus: NatsBus, stream: str, **fields: object) -> None:
    """Changes a stream as somebody with the right to it may."""
    await bus.request_json(f"$JS.API.STREAM.UPDATE.{stream}", {**await config(bus, stream), **fields})


async def change(bus: NatsBus, durable: str, fields: Mapping[str, object]) -> None:
    """Changes a durable on FLOW."""
    body = {"stream_name": FLOW, "config": {**await config(bus, FLOW, durable), **fields}}
    await bus.request_json(f"$JS.API.CONSUMER.CREATE.{FLOW}.{durable}", body)


@pytest.fixture
async def empty(nats_server: NatsServer, connect: Connect) -> NatsBus:
    return await connect(nats_server.settings())


async def test_the_first_one_creates_everything_and_the_second_changes_nothing(empty: NatsBus) -> None:
    done = await told(empty, Wishes(max_bytes={FLOW: 1 << 30}))
    assert "stream FLOW: created, with 1 replicas" in done
    assert [each for each in done if each.startswith("durable track: created")]
    assert (await config(empty, FLOW))["max_bytes"] == 1 << 30
    assert await told(empty) == []


async def test_a_stored_template_gets_its_durables(mesh: Mesh) -> None:
    await mesh.catalog.put(flows.stored(flows.template()))
    done = await told(mesh.bus)
    assert [each for each in done if each.startswith("durable agent-enrichment: created, with ")]
    await mesh.catalog.put(flows.stored(flows.template("audit")))
    [extended] = [each for each in await told(mesh.bus) if "agent-enrichment" in each]
    assert "flow.audit." in extended
    await ensure_durables(mesh.bus, mesh.catalog.all())
    assert await told(mesh.bus) == []


async def test_limits_are_changed_and_told(bus: NatsBus) -> None:
    await told(bus)
    assert await told(bus, Wishes(max_bytes={FLOW: 1 << 30, KEY: -1})) == [
        "stream FLOW: max_bytes was -1, is 1073741824",
        "stream KEY: max_bytes was 1073741824, is -1",
    ]


async def test_ages_are_changed_and_told_and_never_put_back(mesh: Mesh) -> None:
    await mesh.put(flows.template())
    await told(mesh.bus)
    done = await told(mesh.bus, Wishes(max_age={KEY: timedelta(days=30)}))
    assert done == ["stream KEY: max_age was 0, is 2.592e+06 s"]
    assert await told(mesh.bus) == []
    with pytest.raises(HandrailError, match="stream FLOW can't drop messages by their age"):
        await told(mesh.bus, Wishes(max_age={FLOW: timedelta(days=30)}))


async def test_a_key_is_not_forgotten_while_its_flow_is_kept(mesh: Mesh) -> None:
    template = flows.template()
    template.proto.retention.FromTimedelta(timedelta(days=20))
    await mesh.put(template)
    with pytest.raises(HandrailError, match=r"KEY can't forget keys after .* give at least 7 days"):
        await told(mesh.bus, Wishes(max_age={KEY: timedelta(days=1)}))
    with pytest.raises(HandrailError, match=r"KEY can't forget keys after .* keeps its flows longer"):
        await told(mesh.bus, Wishes(max_age={KEY: timedelta(days=10)}))


@pytest.mark.parametrize("stream", [TIMER, "ABSENCE"])
async def test_a_limit_that_would_drop_messages_is_refused(bus: NatsBus, stream: str) -> None:
    with pytest.raises(HandrailError, match=f"stream {stream} can't have a limit: it would drop its oldest messages"):
        await told(bus, Wishes(max_bytes={stream: 1 << 20}))


async def test_a_limit_that_the_broker_has_no_room_for_is_told_with_the_limit(empty: NatsBus) -> None:
    with pytest.raises(HandrailError, match=r"stream FLOW can't be created: .* its limit of 1099511627776 bytes"):
        await told(empty, Wishes(max_bytes={FLOW: 1 << 40}))


async def test_a_name_that_is_unknown_is_refused_with_those_that_are_known(bus: NatsBus) -> None:
    with pytest.raises(HandrailError, match=r"no stream or durable FLOWS: streams are .*FLOW, .*durables are decide, "):
        await told(bus, Wishes(reset=frozenset({"FLOWS"})))


async def test_p2_what_somebody_changed_is_put_back_only_when_told_to(bus: NatsBus) -> None:
    await told(bus)
    await update(bus, FLOW, max_age=HOUR)
    await update(bus, KEY, max_bytes=1 << 20)
    with pytest.raises(
        HandrailError, match=r"stream FLOW was changed: max_age is 3600 s.*`handrail admin setup --reset FLOW`"
    ):
        await told(bus, Wishes(max_bytes={KEY: -1}))
    assert (await config(bus, KEY))["max_bytes"] == 1 << 20, "nothing is changed before everything may be"
    assert await told(bus, Wishes(reset=frozenset({FLOW}))) == ["stream FLOW: max_age was 3600 s, is 0"]
    await ensure_streams(bus)


async def test_what_an_earlier_release_configured_is_upgraded(bus: NatsBus, monkeypatch: pytest.MonkeyPatch) -> None:
    await told(bus)
    former = {QUARANTINE: {"subjects": (["quarantine.>", "odd.>"],)}}
    monkeypatch.setattr("handrail.mesh.streams.promised.FORMER_VALUES", former)
    await update(bus, QUARANTINE, subjects=["odd.>", "quarantine.>"])
    with pytest.raises(HandrailError, match=r"`handrail admin setup` mends it"):
        await ensure_streams(bus)
    wanted = streams.stream_configs()[QUARANTINE]["subjects"]
    assert await told(bus) == [f"stream QUARANTINE: subjects was ['odd.>', 'quarantine.>'], is {wanted}"]


async def test_p3_a_key_holds_no_more_than_an_id(bus: NatsBus) -> None:
    await told(bus)
    await update(bus, KEY, max_msg_size=-1)
    await bus.publish("key.refund.large", bytes(100_000))
    await ensure_streams(bus)
    assert await told(bus) == ["stream KEY: max_msg_size was -1, is 256"]
    with pytest.raises(HandrailError):
        await bus.publish("key.refund.larger", bytes(257))
    await bus.publish("key.refund.small", bytes(32))
    await update(bus, KEY, max_msg_size=1000)
    assert await told(bus) == []


async def test_an_announcement_of_a_worker_is_no_larger_than_readers_take(bus: NatsBus) -> None:
    await told(bus)
    await update(bus, WORKER, max_msg_size=-1)
    await bus.publish("worker.ledger.large", bytes(500_000))
    await ensure_streams(bus)
    assert await told(bus) == ["stream WORKER: max_msg_size was -1, is 262144"]
    with pytest.raises(HandrailError) as refused:
        await bus.publish("worker.ledger.larger", bytes(262_145))
    assert refused.value.reason_name == "TOO_LARGE"
    await bus.publish("worker.ledger.usual", bytes(200_000))
    await update(bus, WORKER, max_msg_size=1 << 20)
    assert await told(bus) == []


async def test_a_foreign_stream_is_not_reset(empty: NatsBus) -> None:
    await empty.request_json(f"$JS.API.STREAM.CREATE.{FLOW}", {"name": FLOW, "subjects": ["orders.>"]})
    with pytest.raises(HandrailError, match="stream FLOW exists and is not Handrail's"):
        await told(empty, Wishes(reset=frozenset({FLOW})))
    assert (await config(empty, FLOW))["subjects"] == ["orders.>"]


async def test_what_the_broker_can_not_change_is_told_with_a_way_out(empty: NatsBus) -> None:
    wanted = {**streams.stream_configs()[FLOW], "storage": "memory", "metadata": {"handrail": "1"}}
    await empty.request_json(f"$JS.API.STREAM.CREATE.{FLOW}", {"name": FLOW, **wanted})
    with pytest.raises(HandrailError, match=r"stream FLOW can't be changed: .*back it up, delete it"):
        await told(empty, Wishes(reset=frozenset({FLOW})))


async def test_a_durable_that_somebody_changed_is_put_back_only_when_told_to(mesh: Mesh) -> None:
    await mesh.put(flows.template())
    assert await told(mesh.bus) == ["durable reader-visibility: delivers flow.>"]
    await change(mesh.bus, "agent-enrichment", {"max_deliver": 1, "max_ack_pending": 1})
    with pytest.raises(HandrailError, match="durable agent-enrichment was changed: max_deliver is 1, not -1"):
        await told(mesh.bus)
    done = await told(mesh.bus, Wishes(reset=frozenset({"agent-enrichment"})))
    assert done == ["durable agent-enrichment: max_ack_pending was 1, is -1; max_deliver was 1, is -1"]


async def test_more_replicas_are_given_to_every_stream(nats_cluster: NatsCluster, connect: Connect) -> None:
    bus = await connect(nats_cluster.settings("setup"))
    await told(bus)
    assert (await config(bus, FLOW))["num_replicas"] == 1
    done = await told(bus, Wishes(replicas=3))
    assert {each.partition(":")[2] for each in done} == {" num_replicas was 1, is 3"}
    assert len(done) == len(streams.stream_configs())
    assert await told(bus) == []


async def test_the_command_prints_what_it_changed(
    nats_server: NatsServer, capsys: pytest.CaptureFixture[str], connect: Connect
) -> None:
    async def command(*options: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main, ["admin", "setup", "--nats", nats_server.url, *options])
        return (code, *capsys.readouterr())

    code, out, _ = await command("--max-bytes", "FLOW=2GiB", "--max-bytes", "KEY=unlimited")
    assert code == 0
    assert "stream FLOW: created, with 1 replicas\n" in out
    assert await command() == (0, "nothing to change\n", "")
    bus = await connect(nats_server.settings())
    assert ((await config(bus, FLOW))["max_bytes"], (await config(bus, KEY))["max_bytes"]) == (2 << 30, -1)
    await update(bus, FLOW, max_age=HOUR)
    code, out, complaint = await command()
    assert (code, out) == (1, "")
    assert complaint.endswith("(FOREIGN_STREAM)\n")
    assert await command("--reset", "FLOW") == (0, "stream FLOW: max_age was 3600 s, is 0\n", "")
