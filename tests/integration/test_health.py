"""Health tells the truth: what is broken is named, and what can be made anew without a loss is made anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2

from handrail.cli.main import main
from handrail.coordinator.api.health import Health
from handrail.coordinator.reconcile.replica import Replica
from handrail.mesh import telemetry
from handrail.mesh.bus import ApiError, NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import FLOW, TIMER, ensure_streams
from handrail.mesh.streams.catalog import Catalog
from handrail.v1.error_reason_pb2 import ErrorReason
from tests.conftest import Connect
from tests.support import flows
from tests.support.api import Api, running_api
from tests.support.mesh import Mesh, publish, publish_at_once
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually

# The stubs are older than these messages.
ListRequest = health_pb2.HealthListRequest  # type: ignore[attr-defined]
ListResponse = health_pb2.HealthListResponse  # type: ignore[attr-defined]

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def mesh(mesh: Mesh) -> Mesh:
    """The refund."""
    await mesh.put(flows.template())
    return mesh


@asynccontextmanager
async def watched(bus: NatsBus, folder: Path) -> AsyncIterator[tuple[Api, Health]]:
    """A coordinator that serves, and its health, which looks when it is told to."""
    async with running_api(bus, folder) as api:
        yield api, Health(bus, api.server, api.replica.diagnosis())


async def broken(api: Api) -> set[str]:
    """The parts that the health service names; what is asked for by load balancers agrees."""
    list_them = api.channel.unary_unary(
        "/grpc.health.v1.Health/List",
        request_serializer=ListRequest.SerializeToString,
        response_deserializer=ListResponse.FromString,
    )
    answer = await list_them(ListRequest())
    down = {name for name, each in answer.statuses.items() if each.status == NOT_SERVING}
    parts = {name.removeprefix("handrail.part.") for name in down if name.startswith("handrail.part.")}
    assert ("" in down) == bool(parts)
    return parts


async def command(api: Api) -> int:
    """What `handrail health coordinator` exits with."""
    return await asyncio.to_thread(main, ["health", "coordinator", "--address", api.address])


async def agent_complaint(server: NatsServer, capsys: pytest.CaptureFixture[str]) -> str:
    """What `handrail health agent enrichment` says where it exits with 1."""
    code = await asyncio.to_thread(main, ["health", "agent", "enrichment", "--nats", server.url])
    assert code == 1
    return capsys.readouterr().err


async def refused(api: Api) -> set[str]:
    """The durables that the replica can't consume."""
    return set(api.replica.refused_pulls())


async def delete(bus: NatsBus, what: str) -> None:
    """Delete a stream, or a durable: `FLOW`, `FLOW.track`."""
    kind = "CONSUMER" if "." in what else "STREAM"
    await bus.request_json(f"$JS.API.{kind}.DELETE.{what}")


async def test_a_flow_stream_that_is_gone_is_told_and_never_made_anew(
    mesh: Mesh, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with watched(mesh.bus, tmp_path) as (api, health):
        await health.look(thorough=True)
        assert await broken(api) == set()
        assert await command(api) == 0
        await delete(mesh.bus, FLOW)
        await health.look(thorough=True)
        assert await broken(api) == {"stream.FLOW"}
        assert await command(api) == 1
        assert "stream.FLOW" in capsys.readouterr().err
        with pytest.raises(ApiError):
            await mesh.bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}")
    with pytest.raises(HandrailError, match="stream FLOW is gone") as refused:
        await Replica(mesh.bus, holder="t").prepare(replicas=1)
    assert refused.value.reason == ErrorReason.ERROR_REASON_STREAM_LOST


class Counting:
    """Keeps what was counted."""

    def __init__(self) -> None:
        self.counted: list[tuple[str, int, object]] = []

    def add(self, name: str, amount: int, attributes: object) -> None:
        """Add to a counter."""
        self.counted.append((name, amount, attributes))

    def close(self) -> None:
        """Nothing is left to send."""


async def test_what_the_coordinator_can_not_consume_makes_it_look_before_its_time(
    mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handrail.coordinator.api.health._PROBE_EVERY", timedelta(seconds=0.05))
    monkeypatch.setattr("handrail.coordinator.api.health._EXAMINED_EACH", 1_000_000)
    counting, stopping = Counting(), asyncio.Event()
    telemetry.use_counters(counting)
    async with watched(mesh.bus, tmp_path) as (api, health):
        keeping = asyncio.create_task(health.keep(stopping))
        try:
            for durable in ("FLOW.track", "TIMER.due"):
                info = f"$JS.API.CONSUMER.INFO.{durable}"
                created = (await mesh.bus.request_json(info))["created"]
                await delete(mesh.bus, durable)

                async def made_anew(info: str = info, created: str = created) -> bool:
                    try:
                        return bool((await mesh.bus.request_json(info))["created"] != created)
                    except ApiError:
                        return False

                await eventually(made_anew, bool)
                await eventually(lambda: refused(api), lambda names: not names)
            assert counting.counted == [
                ("made_anew", 1, {"part": "durable.track"}),
                ("made_anew", 1, {"part": "durable.due"}),
            ]
            await delete(mesh.bus, FLOW)
            await eventually(lambda: broken(api), lambda parts: parts == {"stream.FLOW"})
        finally:
            telemetry.use_counters(None)
            stopping.set()
            await keeping


async def test_timers_that_are_gone_are_made_anew_with_their_durable(mesh: Mesh, tmp_path: Path) -> None:
    async with watched(mesh.bus, tmp_path) as (api, health):
        await delete(mesh.bus, TIMER)
        await health.look(thorough=True)
        assert await broken(api) == set()
        await publish(mesh.bus, flows.start())
        await eventually(lambda: mesh.messages(TIMER), lambda armed: armed > 0)
        info = await mesh.durable("due")
        assert info["config"]["filter_subjects"] == ["due.>"]


@pytest.mark.parametrize("durable", ["track", "agent-enrichment"])
async def test_a_durable_that_is_gone_is_made_anew_and_delivers_everything(
    mesh: Mesh, tmp_path: Path, durable: str
) -> None:
    async with watched(mesh.bus, tmp_path) as (api, health):
        await delete(mesh.bus, f"FLOW.{durable}")
        await publish(mesh.bus, flows.start())
        await health.look(thorough=True)
        assert await broken(api) == set()
        info = await mesh.bus.request_json(f"$JS.API.CONSUMER.INFO.FLOW.{durable}")
        assert info["config"]["deliver_policy"] == "all"
        if durable == "track":
            await eventually(lambda: mesh.messages(TIMER), lambda armed: armed > 0)
        else:
            assert info["num_pending"] == 1


async def change_stream(bus: NatsBus, stream: str, **fields: object) -> None:
    """Change a stream, as somebody with the right to it may."""
    config = (await bus.request_json(f"$JS.API.STREAM.INFO.{stream}"))["config"]
    await bus.request_json(f"$JS.API.STREAM.UPDATE.{stream}", {**config, **fields})


async def change_durable(bus: NatsBus, durable: str, **fields: object) -> None:
    """Change a durable on FLOW."""
    config = (await bus.request_json(f"$JS.API.CONSUMER.INFO.{FLOW}.{durable}"))["config"]
    body = {"stream_name": FLOW, "config": {**config, **fields}}
    await bus.request_json(f"$JS.API.CONSUMER.CREATE.{FLOW}.{durable}", body)


async def pause(bus: NatsBus, durable: str, until: str = "2999-01-01T00:00:00Z") -> None:
    """Pause a durable on FLOW; an empty `until` resumes it."""
    await bus.request_json(f"$JS.API.CONSUMER.PAUSE.{FLOW}.{durable}", {"pause_until": until} if until else {})


@pytest.fixture
def counted() -> Iterator[list[tuple[str, int, object]]]:
    """What is counted during a test."""
    counting = Counting()
    telemetry.use_counters(counting)
    yield counting.counted
    telemetry.use_counters(None)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The errors in the log."""
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


async def test_p2_a_stream_that_is_changed_so_that_it_forgets_is_told_at_the_next_look(
    mesh: Mesh,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    counted: list[tuple[str, int, object]],
) -> None:
    async with watched(mesh.bus, tmp_path) as (api, health):
        await health.look(thorough=True)
        await change_stream(mesh.bus, FLOW, max_age=3600 * 1_000_000_000)
        for _ in range(3):
            await health.look(thorough=True)
            assert await broken(api) == {"stream.FLOW"}
        assert await command(api) == 1
        assert "stream.FLOW" in capsys.readouterr().err
        assert errors(caplog) == ["stream FLOW was changed while this runs: max_age was 0, is 3600 s"]
        assert counted == [("reconfigured", 1, {"part": "stream.FLOW"})]
        await change_stream(mesh.bus, FLOW, max_age=0)
        await health.look(thorough=True)
        assert await broken(api) == set()


async def test_what_an_operator_may_change_is_told_and_breaks_nothing(
    mesh: Mesh, tmp_path: Path, caplog: pytest.LogCaptureFixture, counted: list[tuple[str, int, object]]
) -> None:
    async with watched(mesh.bus, tmp_path) as (api, health):
        await health.look(thorough=True)
        await change_stream(mesh.bus, FLOW, max_bytes=1 << 30)
        await pause(mesh.bus, "agent-enrichment")
        await health.look(thorough=True)
        assert await broken(api) == set()
        told = errors(caplog)
        assert told[0] == "stream FLOW was changed while this runs: max_bytes was -1, is 1073741824"
        assert told[1].startswith(
            "durable agent-enrichment was changed while this runs: pause_until was None, is '2999"
        )
        assert [each[2] for each in counted] == [{"part": "stream.FLOW"}, {"part": "durable.agent-enrichment"}]


async def test_p7_a_durable_of_the_coordinator_that_is_paused_is_told(mesh: Mesh, tmp_path: Path) -> None:
    async with watched(mesh.bus, tmp_path) as (api, health):
        await health.look(thorough=True)
        await pause(mesh.bus, "decide")
        await health.look(thorough=True)
        assert await broken(api) == {"durable.decide"}
        await pause(mesh.bus, "decide", until="")
        await health.look(thorough=True)
        assert await broken(api) == set()


@pytest.mark.parametrize("durable", ["track", "agent-enrichment"])
async def test_p7_a_durable_that_is_changed_so_that_it_drops_messages_is_told(
    mesh: Mesh, tmp_path: Path, caplog: pytest.LogCaptureFixture, durable: str
) -> None:
    async with watched(mesh.bus, tmp_path) as (api, health):
        await health.look(thorough=True)
        await change_durable(mesh.bus, durable, max_deliver=1)
        await health.look(thorough=True)
        assert await broken(api) == {f"durable.{durable}"}
        assert errors(caplog) == [f"durable {durable} was changed while this runs: max_deliver was -1, is 1"]


async def test_subjects_that_somebody_took_from_a_durable_are_given_back(
    mesh: Mesh, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(mesh.bus, tmp_path) as (api, health):
        before = (await mesh.durable("enrichment"))["config"]["filter_subjects"]
        await change_durable(mesh.bus, "agent-enrichment", filter_subjects=before[:1])
        await health.look(thorough=True)
        assert await broken(api) == set()
        assert (await mesh.durable("enrichment"))["config"]["filter_subjects"] == before
        assert errors(caplog) == ["durables agent-enrichment were gone or lacked subjects; they were recreated"]


async def test_the_command_tells_why_an_agent_has_no_durable(
    nats_server: NatsServer, bus: NatsBus, catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    mesh = Mesh(bus, catalog)
    told = await agent_complaint(nats_server, capsys)
    assert "agent enrichment has no durable consumer: no stored template has a step for it" in told
    await catalog.put(flows.stored(flows.template()))
    told = await agent_complaint(nats_server, capsys)
    assert told.endswith("activate a stored one: refund@1\n")
    await mesh.put(flows.template())
    assert "no worker of enrichment asks for work" in await agent_complaint(nats_server, capsys)
    await pause(bus, "agent-enrichment")
    assert "the durable consumer of enrichment is paused" in await agent_complaint(nats_server, capsys)
    await delete(bus, "FLOW.agent-enrichment")
    told = await agent_complaint(nats_server, capsys)
    assert "it was deleted: refund@1 was activated and has a step for it" in told
    await delete(bus, FLOW)
    assert "agent enrichment has no durable consumer: stream not found" in await agent_complaint(nats_server, capsys)


async def test_a_loop_that_breaks_again_and_again_is_named_until_it_goes_well(mesh: Mesh, tmp_path: Path) -> None:
    async with watched(mesh.bus, tmp_path) as (api, health):
        for _ in range(3):
            api.replica.troubles.failed("sweep", "", ZeroDivisionError("a bug"))
        api.replica.troubles.failed("track", flows.FLOW_ID, ZeroDivisionError("a bug"))
        await health.look(thorough=True)
        assert await broken(api) == {"loop.sweep"}, "one flow's bug takes no replica out of service"
        api.replica.troubles.succeeded("sweep")
        await health.look(thorough=False)
        assert await broken(api) == set()


@pytest.mark.parametrize(
    "denied, part", [("timer.>", "permission"), ("$JS.API.CONSUMER.MSG.NEXT.FLOW.decide", "durable.decide")]
)
async def test_a_permission_that_is_lost_is_told(
    nats_server: NatsServer, connect: Connect, tmp_path: Path, denied: str, part: str
) -> None:
    async with await NatsBus.connect(nats_server.settings()) as bus:
        await ensure_streams(bus)
        await Mesh(bus, Catalog(bus)).put(flows.template())
    refusal = f'permissions {{ publish {{ deny: ["{denied}"] }} }}'
    nats_server.stop()
    nats_server.write_config(accounts=f"authorization {{ users: [ {{ user: u, password: p, {refusal} }} ] }}")
    nats_server.start()
    bus = await connect(nats_server.settings(user="u", password="p"))
    async with watched(bus, tmp_path) as (api, health):
        await publish(bus, flows.start())

        async def told() -> set[str]:
            await health.look(thorough=True)
            return await broken(api)

        assert await eventually(told, bool) == {part}


async def test_a_lag_that_grows_at_every_look_is_told(mesh: Mesh, tmp_path: Path) -> None:
    async with running_api(mesh.bus, tmp_path, decides=False) as api:
        health = Health(mesh.bus, api.server, api.replica.diagnosis())
        for look in range(6):
            await publish_at_once(mesh.bus, (flows.start(f"{look * 500 + number:032x}") for number in range(500)))
            assert await broken(api) == set()
            await health.look(thorough=True)
        assert await broken(api) == {"lag.track"}


async def test_a_stream_that_was_restored_makes_a_replica_forget_what_it_knew(mesh: Mesh) -> None:
    replica = Replica(mesh.bus, holder="t")
    replica.finished.add([3])
    diagnosis = replica.diagnosis()
    await diagnosis.examine()
    assert 3 in replica.finished
    for stream in (FLOW, "TEMPLATE"):
        await delete(mesh.bus, stream)
    await ensure_streams(mesh.bus)
    await diagnosis.examine()
    assert 3 not in replica.finished


async def test_an_examination_ends_where_the_broker_is_away(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = Replica(mesh.bus, holder="t")
    request_json = mesh.bus.request_json

    async def soon(subject: str, *args: object, **options: object) -> object:
        return await request_json(subject, timeout=timedelta(seconds=0.2))

    monkeypatch.setattr(mesh.bus, "request_json", soon)
    await mesh.bus.close()
    assert set(await replica.diagnosis().examine()) == {"broker"}
