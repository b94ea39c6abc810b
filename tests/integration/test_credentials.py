"""Users' nkeys and passwords on real brokers: rotated, suspended and reloaded while everybody else works on."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from handrail.cli.credentials import CredentialsFolder
from handrail.mesh.bus import BusSettings, Delivery, NatsBus
from handrail.mesh.bus.connection import Connection
from handrail.mesh.bus.nkey import public_key
from handrail.mesh.errors import WrongCredentials
from handrail.mesh.streams import FLOW, ensure_streams
from handrail.mesh.streams.durables import agent_durable
from handrail.mesh.wire.subjects import Address, Kind
from tests.support.dev import handrail
from tests.support.nats_server import NatsCluster, running_cluster, running_server
from tests.support.waiting import eventually, until

TEMPLATE = """
name: refund
version: 1
starts_with: [shop.v1.Asked]
started_by: [desk]
steps:
  - {name: grant, agent: refunds, after: [shop.v1.Asked], emits: [shop.v1.Granted]}
  - {name: pay, agent: ledger, after: [shop.v1.Granted], emits: [shop.v1.Paid]}
"""
SECONDS = 30
"""Within this time of the command, whoever is suspended is cut off."""


class Installation:
    """Brokers whose permissions, and only they, come from the command."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = CredentialsFolder(folder / "credentials")
        self.out = folder / "nats" / "permissions.conf"
        self._template = folder / "refund.yaml"
        self._template.write_text(TEMPLATE)
        self._stack = stack
        self.url = ""

    def command(self, *arguments: str) -> CompletedProcess[str]:
        """`handrail nats-permissions` with these arguments."""
        given = ("--template", self._template, "--credentials", self.folder.path, "--out", self.out)
        return handrail("nats-permissions", *given, "--nats", self.url, *arguments)

    async def reloaded(self, *arguments: str) -> str:
        """What it prints with --reload; it has to succeed."""
        done = await asyncio.to_thread(self.command, *arguments, "--reload")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def settings(self, user: str) -> BusSettings:
        return self.folder.user(user).login(BusSettings(servers=tuple(self.url.split(",")), name=user))

    async def connect(self, user: str) -> NatsBus:
        """A bus as this user with its newest credentials."""
        bus = await NatsBus.connect(self.settings(user))
        self._stack.push_async_callback(bus.close)
        return bus

    async def prepare(self) -> NatsBus:
        """Creates the streams and a durable for `refunds` that delivers again soon; returns the coordinator's bus."""
        coordinator = await self.connect("coordinator")
        await ensure_streams(coordinator)
        config = {
            "durable_name": agent_durable("refunds"),
            "ack_policy": "explicit",
            "ack_wait": 1_000_000_000,
            "filter_subject": "flow.refund.>",
        }
        await coordinator.request_json(
            f"$JS.API.CONSUMER.CREATE.{FLOW}.{agent_durable('refunds')}", {"stream_name": FLOW, "config": config}
        )
        return coordinator


def reconnects(*buses: NatsBus) -> list[int]:
    return [bus.connection.client.stats["reconnects"] for bus in buses]


async def cut_off(bus: NatsBus) -> None:
    """Waits until the broker has ended this connection, and refused it a new one. Raises AssertionError if not soon."""
    await until(lambda: not bus.connection.connected, within=SECONDS)
    await until(bus.connection.closed.is_set)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Installation]:
    async with AsyncExitStack() as stack:
        installation = Installation(tmp_path, stack)
        assert installation.command().returncode == 0
        server = stack.enter_context(running_server(tmp_path / "nats", accounts="include permissions.conf"))
        installation.url = server.url
        yield installation


async def test_a_suspended_agent_is_cut_off_at_once_and_the_others_work_on_p6(house: Installation) -> None:
    coordinator = await house.prepare()
    refunds, second, ledger = (
        await house.connect("refunds"),
        await house.connect("refunds"),
        await house.connect("ledger"),
    )
    taken: asyncio.Queue[Delivery] = asyncio.Queue()
    await refunds.pull(FLOW, agent_durable("refunds"), in_flight=1, on_delivery=taken.put_nowait)
    await coordinator.publish(Address("refund", "a" * 32, Kind.EVENT, "desk", "b" * 32, "shop.v1.Asked").subject, b"1")
    await asyncio.wait_for(taken.get(), SECONDS)

    async with asyncio.timeout(SECONDS):
        told = await house.reloaded("--suspend", "refunds")
        await asyncio.gather(cut_off(refunds), cut_off(second))
    assert "suspended: refunds\n" in told
    assert "--unsuspend refunds" in told
    assert "if it has tokens of the API, revoke them, too" in told
    with pytest.raises(WrongCredentials, match="whether it is suspended"):
        await house.connect("refunds")
    assert (await ledger.request_json(f"$JS.API.STREAM.INFO.{FLOW}"))["state"]["messages"] == 1
    assert reconnects(coordinator, ledger) == [0, 0]

    await house.reloaded("--unsuspend", "refunds")
    back: asyncio.Queue[Delivery] = asyncio.Queue()
    again = await house.connect("refunds")
    await again.pull(FLOW, agent_durable("refunds"), in_flight=1, on_delivery=back.put_nowait)
    delivery = await asyncio.wait_for(back.get(), SECONDS)
    assert (delivery.sequence, delivery.delivered) == (1, 2)
    assert reconnects(coordinator, ledger) == [0, 0]


async def test_a_suspension_lasts_when_permissions_are_generated_again_p6(house: Installation) -> None:
    await house.reloaded("--suspend", "refunds")
    assert "suspended: refunds\n" in await house.reloaded()
    with pytest.raises(WrongCredentials):
        await house.connect("refunds")


async def test_processes_of_one_user_are_restarted_one_by_one_with_its_new_nkey(house: Installation) -> None:
    first, ledger = await house.connect("refunds"), await house.connect("ledger")
    stolen = house.folder.path.parent / "stolen"
    shutil.copy(house.folder.user("refunds").nkey, stolen)
    former = replace(house.settings("refunds"), nkey_seed_file=stolen)
    told = await house.reloaded("--rotate", "refunds")
    assert "one by one, then --retire refunds" in told
    second = await house.connect("refunds")
    await (await NatsBus.connect(former)).close()
    assert reconnects(first, second, ledger) == [0, 0, 0]

    await house.reloaded("--retire", "refunds")
    await cut_off(first)
    with pytest.raises(WrongCredentials):
        await NatsBus.connect(former)
    assert second.server_version
    assert reconnects(second, ledger) == [0, 0]


async def test_a_stolen_nkey_is_of_no_use_after_one_command_p6(house: Installation) -> None:
    thief, ledger = await house.connect("refunds"), await house.connect("ledger")
    await house.reloaded("--rotate", "refunds", "--retire", "refunds")
    await cut_off(thief)
    await house.connect("refunds")
    assert reconnects(ledger) == [0]


async def test_the_user_that_reloads_may_be_rotated_itself(house: Installation) -> None:
    await house.reloaded("--rotate", "sys")
    await house.reloaded("--retire", "sys")
    assert "n1: reloaded; nothing had changed" in await house.reloaded()


async def test_passwords_are_hashes_in_the_configuration_and_let_their_users_in(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        house = Installation(tmp_path, stack)
        made = house.command("--passwords")
        assert "with passwords: admin, coordinator, desk, ledger" in made.stdout
        with running_server(tmp_path / "nats", accounts="include permissions.conf") as server:
            house.url = server.url
            await house.prepare()
            refunds, ledger = await house.connect("refunds"), await house.connect("ledger")
            hashed = house.folder.user("refunds").public().password
            assert hashed in house.out.read_text()
            for wrong in (hashed, house.settings("ledger").password, ""):
                with pytest.raises(WrongCredentials):
                    await NatsBus.connect(replace(house.settings("refunds"), password=wrong))
            # From a password to an nkey, without a moment in which neither is valid.
            await house.reloaded("--rotate", "refunds")
            second = await house.connect("refunds")
            assert second.connection.settings.nkey_seed_file is not None
            assert reconnects(refunds, second, ledger) == [0, 0, 0]
            await house.reloaded("--retire", "refunds")
            await cut_off(refunds)
            assert reconnects(second, ledger) == [0, 0]


async def connections(house: Installation) -> list[dict[str, Any]]:
    """What the broker's monitoring tells of its connections."""
    monitor = await Connection.open(house.settings("monitor"))
    try:
        subject, asked = "$SYS.REQ.SERVER.PING.CONNZ", json.dumps({"auth": True}).encode()
        inbox: asyncio.Queue[bytes] = asyncio.Queue()
        await monitor.subscribe("_INBOX_monitor.connz", lambda message: inbox.put_nowait(message.data))
        monitor.send(subject, asked, reply="_INBOX_monitor.connz")
        found: list[dict[str, Any]] = json.loads(await asyncio.wait_for(inbox.get(), SECONDS))["data"]["connections"]
    finally:
        await monitor.close()
    return found


async def test_the_brokers_monitoring_names_an_agent_by_its_connection(house: Installation) -> None:
    await house.connect("refunds")
    seen = {each["name"]: each["authorized_user"] for each in await connections(house)}
    assert seen["refunds"] == public_key(house.folder.user("refunds").nkey.read_text().strip())
    assert f"# refunds: AGENTS_3 {seen['refunds']}\n" in house.out.read_text()


async def test_a_reader_is_let_in_with_its_own_durable_alone_until_it_is_suspended_p6(house: Installation) -> None:
    told = await house.reloaded("--reader", "analytics", "--flow-type", "refund", "--flow-type", "order")
    assert "analytics may read refund, order" in told
    assert (await house.connect("analytics")).name == "analytics"
    text = house.out.read_text()
    assert set(re.findall(r"CONSUMER.RESET.FLOW.(reader-\w+)", text)) == {"reader-analytics", "reader-visibility"}
    await house.reloaded("--suspend", "analytics")
    with pytest.raises(WrongCredentials):
        await house.connect("analytics")


@pytest.mark.parametrize(
    "arguments, told",
    [
        (("--suspend", "coordinator"), 'no agent or reader "coordinator"'),
        (("--suspend", "nobody"), 'no agent or reader "nobody": name one of desk, ledger, refunds'),
        (("--rotate", "../refunds"), "there is no user"),
        (("--reader", "analytics"), "--flow-type"),
        (("--flow-type", "refund"), "--reader"),
        (("--retire", "refunds"), "rotate first"),
        (("--rotate", "sys", "--retire", "sys"), "--rotate sys --reload, then --retire sys --reload"),
        (("--rotate", "sys", "--retire", "sys", "--reload"), "--rotate sys --reload, then --retire sys --reload"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_changes_nothing(
    house: Installation, arguments: tuple[str, ...], told: str
) -> None:
    before = house.out.read_text()
    done = house.command(*arguments)
    assert done.returncode in (1, 2)
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert house.out.read_text() == before
    assert house.command().returncode == 0
    assert house.out.read_text() == before


def test_changes_are_written_or_refused(tmp_path: Path) -> None:
    template = tmp_path / "refund.yaml"
    template.write_text(TEMPLATE)
    given = ("nats-permissions", "--template", template, "--credentials", tmp_path / "credentials")
    for change in (("--suspend", "refunds"), ("--rotate", "refunds"), ("--reload",)):
        done = handrail(*given, *change)
        assert (done.returncode, "needs --out" in done.stderr) == (2, True)
    first = handrail(*given, "--out", tmp_path / "permissions.conf", "--reload")
    assert (first.returncode, "generate the permissions first" in first.stderr) == (1, True)
    assert not (tmp_path / "credentials").exists()


async def test_nothing_changes_if_no_server_can_be_asked(house: Installation) -> None:
    house.url = "nats://127.0.0.1:1"
    done = await asyncio.to_thread(house.command, "--suspend", "refunds", "--reload")
    assert done.returncode == 3
    assert not house.folder.user("refunds").suspended


async def all_know_each_other(house: Installation, cluster: NatsCluster) -> None:
    """Waits until each server of the cluster reaches the two others."""
    for url in cluster.urls:
        house.url = url
        asked = partial(asyncio.to_thread, house.command, "--reload")
        await eventually(asked, lambda done: done.stdout.count("nothing had changed") == 3)
    house.url = ",".join(cluster.urls)


def three_files(folder: Path, cluster: NatsCluster) -> list[Path]:
    """Gives each of three servers a file of its own, as on three machines; the next reload takes them."""
    files = [server.folder / f"{server.name}-permissions.conf" for server in cluster.servers]
    for server, file in zip(cluster.servers, files, strict=True):
        shutil.copy(folder / "permissions.conf", file)
        server.config.write_text(server.config.read_text().replace("include ", f"include {server.name}-"))
    return files


async def test_each_server_of_a_cluster_tells_whether_it_has_the_new_file_p6(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        house = Installation(tmp_path, stack)
        assert house.command().returncode == 0
        cluster = stack.enter_context(running_cluster(tmp_path / "nats", accounts="include permissions.conf"))
        await all_know_each_other(house, cluster)
        # They share a file: one command is enough, whichever server it reaches.
        told = await house.reloaded("--suspend", "desk")
        assert told.splitlines()[-3:] == ["n1: reloaded", "n2: reloaded", "n3: reloaded"]
        assert (await house.reloaded()).splitlines()[-3:] == [f"n{n}: reloaded; nothing had changed" for n in (1, 2, 3)]
        # Each has a file of its own: whoever has the old one is named.
        files = three_files(tmp_path / "nats", cluster)
        refunds = await house.connect("refunds")
        done = await asyncio.to_thread(house.command, "--suspend", "refunds", "--reload")
        assert (done.returncode, done.stdout.count("copy the new one there")) == (1, 3)
        for file in files[:2]:
            shutil.copy(house.out, file)
        files[2].write_text("accounts: {")
        done = await asyncio.to_thread(house.command, "--reload")
        assert done.returncode == 1
        assert "n1: reloaded\nn2: reloaded\nn3: not reloaded: " in done.stdout
        shutil.copy(house.out, files[2])
        await asyncio.to_thread(house.command, "--reload")
        await cut_off(refunds)
        assert (await house.reloaded()).count("nothing had changed") == 3


async def test_a_server_that_does_not_answer_is_told(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        house = Installation(tmp_path, stack)
        assert house.command().returncode == 0
        cluster = stack.enter_context(running_cluster(tmp_path / "nats", accounts="include permissions.conf"))
        await all_know_each_other(house, cluster)
        house.url = cluster.urls[0]
        cluster.servers[2].pause()
        done = await asyncio.to_thread(house.command, "--suspend", "refunds", "--reload")
        assert done.returncode == 1
        assert "n1: reloaded\nn2: reloaded\na server: not reloaded: did not say its name" in done.stdout
        with pytest.raises(WrongCredentials):
            await house.connect("refunds")
