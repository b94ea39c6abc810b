"""Watching a flow: every message once, in order, soon; resumable; and ended by a drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from handrail.coordinator.api.authorization import set_caller
from handrail.coordinator.api.flow_lookup import Finder
from handrail.coordinator.api.wakeups import Wakeups
from handrail.coordinator.api.watch import Watcher
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.grants import of_roles
from handrail.coordinator.reconcile.drain import Drain
from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import FLOW
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.subjects import Kind, flow_filter
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.flow_service_pb2 import WatchFlowRequest, WatchFlowResponse
from payments.v1.payments_pb2 import ChargebackReceived
from tests.conftest import Connect
from tests.support import flows
from tests.support.accounts import as_user, guarded_server
from tests.support.api import EOF, Api, bearer, refused, running_api
from tests.support.early import false_start, outcome
from tests.support.mesh import publish
from tests.support.purging import old_flow_id, wipe
from tests.support.waiting import PATIENCE, eventually, until


@pytest.fixture
async def api(api: Api) -> Api:
    """A coordinator that knows the small flow type of these tests."""
    await api.replica.catalog.put(flows.stored(flows.template()))
    return api


def watch(api: Api, *, after: int = 0, flow_id: str = flows.FLOW_ID) -> Any:
    rpc = api.channel.unary_stream(
        "/handrail.v1.FlowService/WatchFlow",
        request_serializer=WatchFlowRequest.SerializeToString,
        response_deserializer=WatchFlowResponse.FromString,
    )
    request = WatchFlowRequest(flow_id=flow_id, after_sequence=after)
    return rpc(request, metadata=bearer(api.token("vera")), timeout=60)


async def next_event(call: Any) -> WatchFlowResponse:
    """The next event, past any checkpoint."""
    while True:
        response: WatchFlowResponse = await call.read()
        assert response is not EOF
        if response.HasField("event"):
            return response


async def test_what_was_stored_comes_first_and_then_what_is_stored_live(api: Api, bus: NatsBus) -> None:
    first = await publish(bus, flows.start())
    call = watch(api)
    seen = await next_event(call)
    assert (seen.sequence, seen.status) == (first, FlowStatus.FLOW_STATUS_RUNNING)
    assert (seen.event.agent, seen.event.type) == ("detection", flows.RECEIVED)

    checkpoint = await call.read()
    assert (checkpoint.HasField("event"), checkpoint.sequence) == (False, first)
    later = [await publish(bus, entry) for entry in (flows.enriched(), flows.notified())]
    live = [await next_event(call), await next_event(call)]
    assert [response.sequence for response in live] == later
    assert live[-1].status == FlowStatus.FLOW_STATUS_COMPLETED


async def test_a_watch_resumes_behind_a_sequence(api: Api, bus: NatsBus) -> None:
    _, second, third = [await publish(bus, entry) for entry in (flows.start(), flows.enriched(), flows.notified())]
    call = watch(api, after=second)
    seen = await next_event(call)
    assert (seen.sequence, seen.status) == (third, FlowStatus.FLOW_STATUS_COMPLETED)


async def test_a_message_that_does_not_count_says_why(api: Api, bus: NatsBus) -> None:
    await publish(bus, flows.start(), flows.notified())
    call = watch(api)
    await next_event(call)
    assert "nothing triggered step notify" in (await next_event(call)).event.void_reason


async def test_watching_a_flow_that_is_not_there_is_refused(api: Api) -> None:
    refusal = await refused(watch(api, flow_id="ef" * 16).read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "FLOW_NOT_FOUND")


async def test_nothing_is_lost_or_repeated_while_many_publish(api: Api, bus: NatsBus) -> None:
    # 60 messages that do not count, by several publishers at once, around the time that the watch begins.
    await publish(bus, flows.start())
    others = [flows.decision(ChargebackReceived(), about=str(number)) for number in range(60)]
    before = asyncio.gather(*(publish(bus, entry) for entry in others[:30]))
    call = watch(api)
    await next_event(call)
    stored = await before + await asyncio.gather(*(publish(bus, entry) for entry in others[30:]))
    seen = [(await next_event(call)).sequence for _ in others]
    assert seen == sorted(stored)


async def test_watches_that_are_cancelled_leave_no_subscription_and_no_consumer(
    api: Api, bus: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handrail.coordinator.api.wakeups._LINGER", timedelta())
    await publish(bus, flows.start())
    before = len(bus.connection.client._subs)
    calls = [watch(api) for _ in range(3)]
    for call in calls:
        await next_event(call)
    await eventually(lambda: consumers(bus), lambda found: len(found) == 1)
    assert len(bus.connection.client._subs) == before + 1
    for call in calls:
        call.cancel()
    await until(lambda: len(bus.connection.client._subs) == before)
    await eventually(lambda: consumers(bus), lambda found: not found)


@pytest.mark.usefixtures("by_hints_alone")
async def test_p7_watches_that_come_and_go_share_one_consumer(api: Api, bus: NatsBus) -> None:
    stored = await publish(bus, flows.start())
    watcher = watcher_of(api, bus)
    found: set[str] = set()
    for entry in (flows.enriched(), flows.notified()):
        async with watching_of(api, bus, watcher, after=stored) as watching:
            stored = await publish(bus, entry)
            assert (await anext(watching)).sequence == stored
            found.update(await consumers(bus))
    assert len(found) == 1


def watcher_of(api: Api, bus: NatsBus) -> Watcher:
    """Watches without further checkpoints."""
    return Watcher(bus, api.replica.store, Drain(), checkpoint=timedelta(hours=1))


@asynccontextmanager
async def watching_of(
    api: Api, bus: NatsBus, watcher: Watcher, flow_id: str = flows.FLOW_ID, *, after: int = 0
) -> AsyncIterator[AsyncGenerator[WatchFlowResponse, None]]:
    """A watch of a flow, past what is stored and the checkpoint behind it."""
    set_caller(Caller("vera", of_roles(())), "/handrail.v1.FlowService/WatchFlow")
    watching = watcher.watch(await Finder(bus, api.replica.store).flow(flow_id), after)
    try:
        async with asyncio.timeout(PATIENCE):
            while (await anext(watching)).HasField("event"):
                pass
            yield watching
    finally:
        await watching.aclose()


async def wakeups_consumer(bus: NatsBus) -> dict[str, Any]:
    """The consumer that wakes the watches; empty before it is there."""
    for name in await consumers(bus):
        found: dict[str, Any] = await bus.request_json(f"$JS.API.CONSUMER.INFO.{FLOW}.{name}")
        return found
    return {}


async def filters(bus: NatsBus) -> list[str] | None:
    """What that consumer picks out; None before it is there."""
    info = await wakeups_consumer(bus)
    return sorted(info["config"].get("filter_subjects", [])) if info else None


OTHER = "ef" * 16


@pytest.fixture
def by_hints_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Watches do not look by themselves."""
    monkeypatch.setattr("handrail.coordinator.api.watch._SOON", 3600.0)
    monkeypatch.setattr("handrail.coordinator.api.watch._SELDOM", 3600.0)


@pytest.mark.usefixtures("by_hints_alone")
async def test_p7_a_replica_is_told_of_watched_flows_alone(api: Api, bus: NatsBus) -> None:
    both = [flow_filter("refund", flow_id) for flow_id in sorted((flows.FLOW_ID, OTHER))]
    await publish(bus, flows.start(), flows.start(OTHER))
    watcher = watcher_of(api, bus)
    async with watching_of(api, bus, watcher) as watching:
        await eventually(lambda: filters(bus), lambda found: found == [flow_filter("refund", flows.FLOW_ID)])
        await publish(bus, flows.enriched(OTHER))
        stored = await publish(bus, flows.enriched())
        assert (await anext(watching)).sequence == stored
        assert (await wakeups_consumer(bus))["delivered"]["consumer_seq"] == 1
        async with watching_of(api, bus, watcher, OTHER) as other:
            await eventually(lambda: filters(bus), lambda found: found == both)
            stored = await publish(bus, flows.notified(OTHER))
            assert (await anext(other)).sequence == stored
        await eventually(lambda: filters(bus), lambda found: found == [flow_filter("refund", flows.FLOW_ID)])


@pytest.mark.usefixtures("by_hints_alone")
async def test_more_watched_flows_than_a_consumer_picks_out_are_woken_too(
    api: Api, bus: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handrail.coordinator.api.wakeups._MOST_FILTERS", 1)
    await publish(bus, flows.start(), flows.start(OTHER))
    watcher = watcher_of(api, bus)
    async with watching_of(api, bus, watcher) as watching:
        await eventually(lambda: filters(bus))
        async with watching_of(api, bus, watcher, OTHER) as other:
            await eventually(lambda: filters(bus), lambda found: found == ["flow.>"])
            for flow_id, each in ((flows.FLOW_ID, watching), (OTHER, other)):
                stored = await publish(bus, flows.enriched(flow_id))
                assert (await anext(each)).sequence == stored


@pytest.mark.usefixtures("by_hints_alone")
async def test_p7_wake_ups_go_on_after_a_failure_that_nobody_foresaw(
    api: Api, bus: NatsBus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await publish(bus, flows.start())

    def broken(message: object) -> str:
        monkeypatch.undo()
        raise ValueError("a bug")

    monkeypatch.setattr("handrail.coordinator.api.wakeups.status", broken)
    async with watching_of(api, bus, watcher_of(api, bus)) as watching:
        await until(lambda: "ValueError: a bug" in caplog.text)
        stored = await publish(bus, flows.enriched())
        assert (await anext(watching)).sequence == stored


async def consumers(bus: NatsBus) -> list[str]:
    """The consumers that wake the watches."""
    answer = await bus.request_json(f"$JS.API.CONSUMER.NAMES.{FLOW}")
    return [name for name in answer["consumers"] or () if name.startswith("wakeups-")]


async def test_a_lost_consumer_of_wake_ups_is_made_again(api: Api, bus: NatsBus) -> None:
    await publish(bus, flows.start())
    call = watch(api)
    await next_event(call)
    (lost,) = await eventually(lambda: consumers(bus), lambda found: len(found) == 1)
    await bus.request_json(f"$JS.API.CONSUMER.DELETE.{FLOW}.{lost}")
    made = await eventually(lambda: consumers(bus), lambda found: bool(found) and found != [lost])
    assert len(made) == 1


async def test_a_quiet_watch_says_that_it_is_alive(api: Api, bus: NatsBus) -> None:
    first = await publish(bus, flows.start())
    store = api.replica.store
    watcher = Watcher(bus, store, Drain(), checkpoint=timedelta(milliseconds=50))
    set_caller(Caller("vera", of_roles(())), "/handrail.v1.FlowService/WatchFlow")
    found = await Finder(bus, store).flow(flows.FLOW_ID)
    seen = []
    async for response in watcher.watch(found, 0):
        seen.append(response)
        if len(seen) == 4:
            break
    assert [response.HasField("event") for response in seen] == [True, False, False, False]
    assert {response.sequence for response in seen} == {first}
    assert {response.status for response in seen} == {FlowStatus.FLOW_STATUS_RUNNING}


async def test_a_missed_hint_only_delays(api: Api, bus: NatsBus, monkeypatch: pytest.MonkeyPatch) -> None:
    await publish(bus, flows.start())
    monkeypatch.setattr(Wakeups, "_wake", lambda self, flow: None)
    call = watch(api)
    await next_event(call)
    second = await publish(bus, flows.enriched())
    assert (await next_event(call)).sequence == second


async def test_a_drain_ends_a_watch_with_where_to_resume(bus: NatsBus, tmp_path: Path) -> None:
    async with running_api(bus, tmp_path) as api:
        await api.replica.catalog.put(flows.stored(flows.template()))
        first = await publish(bus, flows.start())
        call = watch(api)
        await next_event(call)
        draining = asyncio.create_task(api.server.drain())
        while True:
            try:
                if await call.read() is EOF:
                    raise AssertionError("it ended without a reason")
            except grpc.aio.AioRpcError:
                break
        refusal = await refused(call.read())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert refusal.info.metadata["sequence"] == str(first)
        await draining


async def test_a_watch_ends_when_its_flow_is_purged(api: Api, bus: NatsBus) -> None:
    flow_id = old_flow_id()
    await publish(bus, flows.start(flow_id), flows.enriched(flow_id))
    call = watch(api, flow_id=flow_id)
    for _ in range(2):
        await next_event(call)
    await wipe(bus, flow_id)
    await publish(bus, flows.notified(flow_id))
    refusal = await refused(next_event(call))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "FLOW_ARCHIVED")
    assert (await refused(watch(api, flow_id=flow_id).read())).reason == "FLOW_ARCHIVED"


async def test_a_watch_of_a_flow_that_lost_its_template_says_so(bus: NatsBus, tmp_path: Path) -> None:
    async with running_api(bus, tmp_path) as api:
        await publish(bus, flows.start())
        refusal = await refused(watch(api).read())
        assert refusal.reason == "TEMPLATE_NOT_FOUND"


async def test_the_finder_tells_what_is_not_there(bus: NatsBus, store: Any) -> None:
    with pytest.raises(HandrailError) as caught:
        await Finder(bus, store).flow(flows.FLOW_ID)
    assert caught.value.reason_name == "FLOW_NOT_FOUND"


@pytest.mark.usefixtures("by_hints_alone")
async def test_a_watch_is_woken_by_what_an_agent_publishes_from_its_own_account(
    tmp_path: Path, connect: Connect
) -> None:
    template = flows.template()
    with guarded_server(tmp_path / "nats", template.proto) as server:
        bus = await connect(as_user(server, "coordinator"))
        detection, enrichment, notification = [
            await connect(as_user(server, agent)) for agent in ("detection", "enrichment", "notification")
        ]
        async with running_api(bus, tmp_path) as api:
            await api.replica.catalog.put(flows.stored(template))
            first = await publish(detection, flows.start())
            set_caller(Caller("vera", of_roles(())), "/handrail.v1.FlowService/WatchFlow")
            found = await Finder(bus, api.replica.store).flow(flows.FLOW_ID)
            watcher = Watcher(bus, api.replica.store, Drain(), checkpoint=timedelta(hours=1))
            watching = watcher.watch(found, 0)
            seen = [(await anext(watching)).sequence for _ in range(2)]
            # The last one is not due to the consumer's creation, which wakes all watches once.
            for publisher, entry in ((enrichment, flows.enriched()), (notification, flows.notified())):
                await publish(publisher, entry)
                seen += [(await anext(watching)).sequence for _ in range(2)]
            # Each message is followed by a checkpoint.
            assert seen == [first, first, first + 1, first + 1, first + 2, first + 2]
            await watching.aclose()


@pytest.mark.parametrize("early", [outcome(2, run=1, flow_type="loan"), false_start(2, flow_type="loan")])
async def test_p4_a_watch_from_before_the_first_event_shows_the_flow_as_it_is(
    api: Api, bus: NatsBus, early: Entry
) -> None:
    for each in (flows.template("loan", gated=True), flows.template("loan", version=2)):
        await api.replica.catalog.put(flows.stored(each))
    await publish(bus, early)
    async with watching_of(api, bus, watcher_of(api, bus)) as watching:
        await publish(bus, flows.start(flow_type="loan"))
        first = await anext(watching)
        assert (first.event.void_reason, first.status) == ("", FlowStatus.FLOW_STATUS_RUNNING)
        await publish(bus, flows.enriched(flow_type="loan", kind=Kind.PROPOSAL))
        assert not (await anext(watching)).event.void_reason
