"""The readers of `examples`, as processes: everything from a sequence on, and then live; on one server and on three."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from handrail.mesh.bus import RawMessage
from tests.support import flows
from tests.support.accounts import seed, seed_file
from tests.support.hostile import FORMS, TOKENS
from tests.support.nats_server import NatsServer, running_cluster, running_server
from tests.support.node import DESCRIPTORS, NodeAgent, installed, running
from tests.support.raw_client import raw_client
from tests.support.readers import ReadBroker, accounts, prepared, subject
from tests.support.waiting import until

# What npm has to fetch may take its time: that is no fault of the readers'.
pytestmark = pytest.mark.timeout(600)

PYTHON = Path(__file__).parents[2] / "examples" / "python" / "reader.py"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NatsServer, ...]]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), accounts=accounts()) as running_:
        yield running_.servers


@pytest.fixture
def one(tmp_path: Path) -> Iterator[tuple[NatsServer, ...]]:
    with running_server(tmp_path / "nats", accounts=accounts()) as running_:
        yield (running_,)


@pytest.fixture(params=["one", "cluster"])
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[ReadBroker]:
    async with prepared(request.getfixturevalue(request.param)) as broker:
        yield broker


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples in Node with their dependencies, and the domain's contracts."""
    folder = installed(tmp_path_factory.mktemp("examples"))
    (folder / "contracts.binpb").write_bytes(flows.template().descriptor_set)
    return folder


class Program:
    """One of the readers, as `analytics`."""

    def __init__(self, folder: Path, interpreter: str) -> None:
        self._folder = folder
        self._interpreter = interpreter

    def running(self, broker: ReadBroker, *, after: int = 0) -> AbstractContextManager[NodeAgent]:
        urls = ",".join(server.url for server in broker.servers)
        nkey = str(seed_file(broker.servers[0], "analytics"))
        if self._interpreter == "node":
            environment = {
                "NATS_URL": urls,
                "NATS_NKEY_FILE": nkey,
                "HANDRAIL_DESCRIPTORS": str(DESCRIPTORS),
                "CONTRACTS": str(self._folder / "contracts.binpb"),
                "AFTER": str(after),
            }
            return running(self._folder, "reader.js", environment)
        return running(
            self._folder,
            "reader.py",
            {"HANDRAIL_NATS": urls, "HANDRAIL_NATS_NKEY_FILE": nkey},
            interpreter=self._interpreter,
            arguments=["analytics", "--contracts", "payments.v1.payments_pb2", f"--after={after}"],
        )


@pytest.fixture(params=["node", "python"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Program:
    if request.param == "node":
        return Program(request.getfixturevalue("node"), "node")
    shutil.copy(PYTHON, tmp_path)
    return Program(tmp_path, sys.executable)


def lines(process: NodeAgent) -> list[dict[str, Any]]:
    """What it printed so far about messages."""
    return [json.loads(line) for line in process.said.splitlines() if line.startswith("{") and line.endswith("}")]


async def store(broker: ReadBroker, number: int, flow_type: str = "refund") -> RawMessage:
    entry = flows.start(f"{number:032x}", flow_type=flow_type)
    return await broker.put(entry.address.subject, entry.body)


async def test_it_prints_everything_and_then_what_comes(broker: ReadBroker, program: Program) -> None:
    stored = [await store(broker, number) for number in range(5)]
    await store(broker, 5, "loan")
    with program.running(broker, after=stored[1].sequence) as process:
        await until(lambda: len(lines(process)) >= 3)
        await store(broker, 6, "loan")
        stored.append(await store(broker, 7))
        await until(lambda: len(lines(process)) >= 4)
        found = lines(process)
    assert [each["sequence"] for each in found] == [each.sequence for each in stored[2:]]
    assert found[-1] == {
        "sequence": stored[-1].sequence,
        "flow_id": f"{7:032x}",
        "kind": "event",
        "agent": "detection",
        "type": flows.RECEIVED,
        "data": found[-1]["data"],
    }
    assert found[-1]["data"]["chargeback_id"] == flows.received().chargeback_id


async def test_it_goes_on_when_servers_die(broker: ReadBroker, program: Program) -> None:
    stored = [await store(broker, 0)]
    with program.running(broker) as process:
        await until(lambda: lines(process))
        for number, server in enumerate(broker.servers, start=1):
            server.kill()
            server.ensure_running()
            stored.append(await store(broker, number))
        await until(lambda: len(lines(process)) >= len(stored), within=120)
        found = lines(process)
    assert [each["sequence"] for each in found] == [each.sequence for each in stored]


async def test_p6_nothing_that_an_agent_publishes_stops_it(one: tuple[NatsServer, ...], program: Program) -> None:
    async with prepared(one) as broker, raw_client(one[0].url, user="desk", nkey_seed=seed("desk")) as desk:
        with program.running(broker) as process:
            for number, form in enumerate(FORMS.values()):
                await desk.publish(subject("refund", number), b"\xffodd", headers=form)
            for token in TOKENS.values():
                await desk.publish(b"flow.refund.%b.event.desk.%b.shop.v1.Asked" % (token, token), b"odd")
            await desk.publish(subject("refund", 99), b"")
            last = await store(broker, 1)
            await until(lambda: any(each.get("flow_id") == f"{1:032x}" for each in lines(process)))
            found = lines(process)
            assert process.said.replace("\n", "").isprintable()
    assert [each["sequence"] for each in found] == list(range(1, last.sequence + 1))
    assert all("void" in each for each in found[:-1])
