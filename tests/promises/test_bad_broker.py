"""A broker that is not what it should be: too old, in somebody else's use, or full.

Limits and foreign streams as `ensure_streams` sees them are in tests/integration/test_streams.py and test_publish.py,
a full stream without a coordinator in test_agents.py.
"""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import suppress
from itertools import count
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2

from handrail.coordinator.api.dev_tokens import ensure_keys
from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.errors import HandrailError, StreamFull
from handrail.mesh.streams import ensure_streams
from handrail.mesh.wire.envelope import pack
from handrail.v1.approval_service_pb2 import ApproveProposalRequest
from handrail.v1.flow_service_pb2 import StartFlowRequest
from tests.conftest import Connect
from tests.promises.old_server import serving
from tests.promises.team import LARGE, Team, claim
from tests.support.api import Refusal, refused
from tests.support.dev import handrail_process
from tests.support.house import House
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually


async def coordinator_on(url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What becomes of `handrail coordinator` on this broker."""
    keys = ("--jwt-public-keys", str(ensure_keys(folder).public))
    command = ("coordinator", "--listen", "127.0.0.1:0", "--nats", url, *keys, "--log-level", "error")
    return await asyncio.to_thread(handrail_process, *command)


def complaint(ended: subprocess.CompletedProcess[str]) -> str:
    """The one line that a command ends with that could not do its work."""
    assert ended.returncode == 1
    assert ended.stdout == ""
    [line] = ended.stderr.splitlines()
    assert line.startswith("handrail: ")
    return line


@pytest.mark.parametrize("version,level", [("2.9.25", None), ("2.12.8", 3)])
async def test_a_server_too_old_is_refused_with_the_version_needed(version: str, level: int | None) -> None:
    async with (
        serving(version, api_level=level) as url,
        await NatsBus.connect(BusSettings(servers=(url,), name="coordinator")) as bus,
    ):
        with pytest.raises(HandrailError, match=f"nats-server {version} .* needs 2.14 or newer") as refusal:
            await ensure_streams(bus)
        assert refusal.value.reason_name == "BROKER_TOO_OLD"


async def test_a_coordinator_on_a_server_too_old_says_so_in_one_line(tmp_path: Path) -> None:
    async with serving("2.12.8", api_level=3) as url:
        line = complaint(await coordinator_on(url, tmp_path))
    assert "nats-server 2.12.8" in line
    assert "needs 2.14 or newer" in line
    assert line.endswith("(BROKER_TOO_OLD)")


async def test_a_coordinator_leaves_a_stream_alone_that_is_not_its_own(
    nats_server: NatsServer, connect: Connect, tmp_path: Path
) -> None:
    bus = await connect(nats_server.settings("admin"))
    await bus.request_json("$JS.API.STREAM.CREATE.FLOW", {"name": "FLOW", "subjects": ["orders.>"]})
    await bus.publish("orders.1", b"somebody's order")
    line = complaint(await coordinator_on(nats_server.url, tmp_path))
    assert "stream FLOW exists and is not Handrail's" in line
    assert line.endswith("(FOREIGN_STREAM)")
    info = await bus.request_json("$JS.API.STREAM.INFO.FLOW")
    assert (info["config"]["subjects"], info["state"]["messages"]) == (["orders.>"], 1)


def assert_full(refusal: Refusal) -> None:
    """A caller was told that there is no room, and when to try again."""
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STREAM_FULL")
    assert refusal.detail(error_details_pb2.RetryInfo).retry_delay.seconds > 0
    assert refusal.info.metadata["stream"] == "FLOW"


async def test_a_full_stream_refuses_loses_nothing_and_goes_on_when_there_is_room(house: House) -> None:
    team, started = Team(), list[str]()
    async with house.coordinator() as people, house.working(team.agents):
        waiting = await house.start(claim("waiting", units=LARGE))
        approval = await people.approval(waiting)
        await house.set_limit("FLOW", await house.mesh.messages() + 25)
        with suppress(StreamFull):
            for number in count():
                flow = await team.detection.start_flow("refund", claim(f"cb-{number}"), key=f"k-{number}")
                started.append(flow.flow_id)
        assert started
        begin = StartFlowRequest(flow_type="refund", data=pack(claim("by-a-person")), key="by-a-person")
        vote = ApproveProposalRequest(approval_id=approval.approval_id, digest=approval.digest)
        assert_full(await refused(people.flows.StartFlow(begin, metadata=people.by("olga"))))
        assert_full(await refused(people.approvals.ApproveProposal(vote, metadata=people.by("anna"))))

        await house.set_limit("FLOW", -1)
        refused_key = f"k-{len(started)}"
        started.append((await people.flows.StartFlow(begin, metadata=people.by("olga"))).flow_id)
        again = await team.detection.start_flow("refund", claim("again"), key=refused_key)
        assert not again.already_started, "the key was used, and no flow begun with it"
        for name in ("anna", "ben"):
            await people.approve(approval, by=name)
        for flow_id in (*started, again.flow_id, waiting):
            await people.until_status(flow_id, "COMPLETED")
    assert len(set(team.book.calls)) == len(team.book.calls), "no handler ran twice for want of room"
    assert len(team.told) == len(started) + 2


async def test_a_message_waits_for_room_in_quarantine(house: House) -> None:
    async with house.coordinator() as people:
        ledger = await house.connect("ledger")
        admin = await house.connect("admin")
        config = (await admin.request_json("$JS.API.STREAM.INFO.QUARANTINE_ledger"))["config"]
        full = {**config, "max_msgs": 1, "discard": "new"}
        await admin.request_json("$JS.API.STREAM.UPDATE.QUARANTINE_ledger", full)
        bodies = {f"bad {number}".encode() for number in range(5)}
        for number, body in enumerate(sorted(bodies)):
            subject = f"flow.refund.{number:032x}.failure.ledger.{number:032x}.handrail.v1.StepFailed"
            await ledger.publish(subject, body)
        await eventually(people.quarantined, lambda kept: len(kept) == 1)
        assert await house.mesh.unsettled("decide") >= 4
        await admin.request_json("$JS.API.STREAM.UPDATE.QUARANTINE_ledger", config)
        await house.until_quiet()
        assert {each.message.body for each in await people.quarantined()} == bodies


async def test_a_business_key_that_finds_no_room_begins_nothing(house: House) -> None:
    team = Team()
    async with house.working([team.detection]):
        await house.set_limit("KEY", 1)
        await team.detection.start_flow("refund", claim(), key="first")
        with pytest.raises(StreamFull, match="stream KEY is full"):
            await team.detection.start_flow("refund", claim(), key="second")
        assert await house.mesh.messages() == 1
        again = await team.detection.start_flow("refund", claim(), key="first")
        assert again.already_started
        await house.set_limit("KEY", -1)
        assert not (await team.detection.start_flow("refund", claim(), key="second")).already_started
