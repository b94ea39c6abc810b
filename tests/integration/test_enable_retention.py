"""A FLOW of an earlier release gets a configuration that lets it be purged, and keeps all that it has."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from handrail.cli.main import main
from handrail.mesh.bus import NatsBus
from handrail.mesh.bus.protocol import Message
from handrail.mesh.errors import AlreadyStored, BrokerUnavailable, HandrailError
from handrail.mesh.streams import FLOW, ensure_streams, streams
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import DECIDE
from handrail.mesh.streams.enable_retention import enable_retention
from tests.conftest import Connect
from tests.support.flows import enriched, notified, start, template
from tests.support.mesh import Mesh, publish
from tests.support.nats_server import NatsCluster, NatsServer
from tests.support.retained import flow_id, handle_all
from tests.support.waiting import eventually


async def installed(bus: NatsBus, *, replicas: int = 1) -> dict[str, Any]:
    """An installation of an earlier release with some flows; what FLOW is."""
    earlier = {**streams.stream_configs()[FLOW], "deny_purge": True, "max_bytes": 1 << 30}
    config = {"name": FLOW, **earlier, "num_replicas": replicas, "metadata": {"handrail": "1"}}
    await bus.request_json(f"$JS.API.STREAM.CREATE.{FLOW}", config)
    await ensure_streams(bus, replicas=replicas)
    mesh = Mesh(bus, Catalog(bus))
    await mesh.put(template())
    for number in range(20):
        await publish(bus, start(flow_id(number)), enriched(flow_id(number)), notified(flow_id(number)))
    await handle_all(bus)
    for number in range(20, 25):
        await publish(bus, start(flow_id(number)))
    return await flow_info(bus)


async def flow_info(bus: NatsBus) -> dict[str, Any]:
    return await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}")


async def durables(bus: NatsBus) -> dict[str, object]:
    """What the durables of FLOW have handled, and have left."""
    listed = (await bus.request_json(f"$JS.API.CONSUMER.LIST.{FLOW}"))["consumers"]
    return {each["name"]: (each["ack_floor"]["stream_seq"], each["num_pending"], each["config"]) for each in listed}


async def done(bus: NatsBus, folder: Path, *, steps: int = 99) -> list[str]:
    """Runs the command; ends it after some steps, as a kill does."""
    said: list[str] = []
    async for text in enable_retention(bus, folder):
        said.append(text)
        if len(said) == steps:
            break
    return said


def lasting(info: dict[str, Any]) -> object:
    """What has to stay as it was."""
    config = {name: value for name, value in info["config"].items() if name not in ("deny_purge", "metadata")}
    state = [info["state"][name] for name in ("messages", "first_seq", "last_seq", "bytes")]
    return streams.created(info), config, state


async def purges(bus: NatsBus) -> None:
    """FLOW takes messages, each once, and can be purged."""
    last = await publish(bus, start(flow_id(99)))
    with pytest.raises(AlreadyStored):
        await publish(bus, start(flow_id(3)))
    answer = await bus.request_json(f"$JS.API.STREAM.PURGE.{FLOW}", {"filter": f"flow.refund.{flow_id(99)}.>"})
    assert (answer["purged"], last) == (1, 66)


@pytest.fixture
async def bare(nats_server: NatsServer, connect: Connect) -> NatsBus:
    return await connect(nats_server.settings("admin"))


async def test_p2_flow_keeps_its_messages_and_durables(bare: NatsBus, tmp_path: Path) -> None:
    before, positions = await installed(bare), await durables(bare)
    said = await done(bare, tmp_path / "snapshot")
    assert said[-1] == "FLOW has all that it had: start agents and coordinators again"
    after = await flow_info(bare)
    assert lasting(after) == lasting(before)
    assert await durables(bare) == positions
    assert not after["config"].get("deny_purge")
    await ensure_streams(bare)
    await purges(bare)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
async def test_p2_after_a_kill_the_command_goes_on(bare: NatsBus, tmp_path: Path, steps: int) -> None:
    before, positions = await installed(bare), await durables(bare)
    await done(bare, tmp_path / "snapshot", steps=steps)
    await done(bare, tmp_path / "snapshot")
    assert lasting(await flow_info(bare)) == lasting(before)
    assert await durables(bare) == positions
    await purges(bare)


async def test_p2_a_restore_that_is_cut_short_is_done_again(
    bare: NatsBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await installed(bare)
    with monkeypatch.context() as broken:
        broken.setattr(bare.connection, "request", cut_short(bare))
        with pytest.raises(BrokerUnavailable):
            await done(bare, tmp_path / "snapshot")
    # The broker lets go of what it has of a restore after some seconds.
    await eventually(lambda: finishes(bare, tmp_path / "snapshot"), within=60)
    assert lasting(await flow_info(bare)) == lasting(before)
    await purges(bare)


def cut_short(bus: NatsBus) -> Any:
    """The requests of a bus; the last one of a restore is not sent."""
    request = bus.connection.request

    async def cut(subject: str, body: bytes, **more: Any) -> object:
        if "RESTORE." in subject and not body:
            raise BrokerUnavailable("the connection broke")
        return await request(subject, body, **more)

    return cut


async def finishes(bus: NatsBus, folder: Path) -> bool:
    with suppress(HandrailError):
        await done(bus, folder)
        return True
    return False


@pytest.mark.parametrize("lost", ["first", "second", "last"])
async def test_p2_a_snapshot_that_lacks_a_piece_is_not_relied_on(
    bare: NatsBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    await installed(bare)
    for number in range(20):
        subject = f"flow.refund.{flow_id(number)}.event.detection.{number:032x}.a.B"
        await bare.publish(subject, random.Random(number).randbytes(60_000))
    await handle_all(bare)
    before = await flow_info(bare)
    with monkeypatch.context() as lossy:
        lossy.setattr(bare.connection, "subscribe", losing(bare, lost))
        with pytest.raises(HandrailError, match=r"got lost: run|is not whole"):
            await done(bare, tmp_path / "snapshot")
    assert (await flow_info(bare))["state"] == before["state"]
    assert (await flow_info(bare))["config"]["deny_purge"]
    await done(bare, tmp_path / "snapshot")
    assert lasting(await flow_info(bare)) == lasting(before)


def losing(bus: NatsBus, lost: str) -> Any:
    """Subscriptions of a bus that lose one piece of a snapshot on its way."""
    subscribe = bus.connection.subscribe
    seen = 0

    async def losing_one(subject: str, on_message: Callable[[Message], None], **more: Any) -> object:
        def arrive(message: Message) -> None:
            nonlocal seen
            seen += bool(message.data and message.reply)
            is_last = bool(message.data) and not message.reply
            if not (is_last if lost == "last" else seen == ("first", "second").index(lost) + 1):
                on_message(message)

        return await subscribe(subject, arrive, **more)

    return losing_one


async def test_nothing_is_done_while_somebody_works_with_flow(bare: NatsBus, tmp_path: Path) -> None:
    await installed(bare)
    pull = await bare.pull(FLOW, DECIDE, in_flight=1, on_delivery=lambda delivery: None)
    await eventually(lambda: waiting(bare))
    with pytest.raises(HandrailError, match=r"somebody works with FLOW \(decide\): stop agents"):
        await done(bare, tmp_path / "snapshot")
    await pull.stop()
    assert (await flow_info(bare))["config"]["deny_purge"]
    assert "handrail-frozen" not in (await flow_info(bare))["config"]["metadata"]


async def waiting(bus: NatsBus) -> int:
    return int((await bus.request_json(f"$JS.API.CONSUMER.INFO.{FLOW}.{DECIDE}"))["num_waiting"])


async def test_without_its_snapshot_a_flow_that_is_gone_is_not_made_up(bare: NatsBus, tmp_path: Path) -> None:
    await installed(bare)
    await done(bare, tmp_path / "snapshot", steps=1)
    with pytest.raises(HandrailError, match="begun with another folder"):
        await done(bare, tmp_path / "other")
    await done(bare, tmp_path / "snapshot", steps=3)
    with pytest.raises(HandrailError, match="has no snapshot of it"):
        await done(bare, tmp_path / "other")
    snapshot = tmp_path / "snapshot" / "FLOW.snapshot"
    whole = snapshot.read_bytes()
    snapshot.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(HandrailError, match="is damaged"):
        await done(bare, tmp_path / "snapshot")
    snapshot.write_bytes(whole)
    await done(bare, tmp_path / "snapshot")
    await purges(bare)
    assert await done(bare, tmp_path / "new") == []


async def test_p2_three_replicas_stay_three(nats_cluster: NatsCluster, connect: Connect, tmp_path: Path) -> None:
    bus = await connect(nats_cluster.settings("admin"))
    before = await installed(bus, replicas=3)
    said = await done(bus, tmp_path / "snapshot")
    assert said[-1].startswith("FLOW has all that it had")
    after = await eventually(lambda: flow_info(bus), lambda info: info["config"]["num_replicas"] == 3)
    assert lasting(after) == lasting(before)
    await purges(bus)


async def test_the_command_tells_each_step(
    bare: NatsBus, nats_server: NatsServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await installed(bare)
    command = ["admin", "enable-retention", str(tmp_path / "snapshot"), "--nats", nats_server.url]
    assert await asyncio.to_thread(main, command) == 0
    assert "65 messages and" in capsys.readouterr().out
    assert await asyncio.to_thread(main, [*command[:2], str(tmp_path / "new"), *command[3:]]) == 0
    assert capsys.readouterr().out == "nothing to change: FLOW can be purged\n"


async def test_p2_a_message_that_came_meanwhile_keeps_flow(bare: NatsBus, tmp_path: Path) -> None:
    before = await installed(bare)
    steps = enable_retention(bare, tmp_path / "snapshot")
    assert [await anext(steps), (await anext(steps)).split(" and ")[0]] == ["FLOW takes no messages", "65 messages"]
    with pytest.raises(HandrailError):
        await publish(bare, start(flow_id(99)))
    await bare.request_json(f"$JS.API.STREAM.UPDATE.{FLOW}", before["config"])  # as an operator may
    await publish(bare, start(flow_id(99)))
    with pytest.raises(HandrailError, match="FLOW has changed since"):
        await anext(steps)
    assert (await flow_info(bare))["state"]["messages"] == 66
