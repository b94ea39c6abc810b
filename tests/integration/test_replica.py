"""A coordinator replica on a real server: its timers, its sweep, its leases, and what it remembers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from handrail.coordinator.decide.timers import timers
from handrail.coordinator.reconcile.replica import Replica
from handrail.coordinator.reconcile.timer_schedule import TimerSchedule
from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow, StepRun
from handrail.mesh.streams import TIMER
from handrail.mesh.streams.lease_bucket import LeaseBucket
from handrail.mesh.streams.leases import Leases
from handrail.mesh.wire import ids
from handrail.v1.error_reason_pb2 import ErrorReason
from tests.support import flows
from tests.support.coordinator import coordinating
from tests.support.mesh import Mesh, publish
from tests.support.waiting import eventually

BUSY = ErrorReason.ERROR_REASON_FLOW_BUSY


@pytest.fixture
async def mesh(mesh: Mesh) -> Mesh:
    """The refund with a first step that times out soon."""
    await mesh.put(flows.template(timeout=timedelta(seconds=0.3), attempts=2))
    return mesh


running = partial(coordinating, sweep_interval=timedelta(hours=1))
"""A replica for as long as the block runs; its sweep never comes by itself."""


async def test_a_step_that_begins_is_given_a_timer_and_its_end_clears_it(mesh: Mesh) -> None:
    async with running(mesh.bus):
        await publish(mesh.bus, flows.start(), flows.enriched())
        waiting = await eventually(mesh.armed, lambda names: any("notify" in name for name in names))
        assert any("deadline" in name for name in waiting)
        await publish(mesh.bus, flows.notified())
        await eventually(mesh.armed, lambda names: not names)


async def test_p1_a_flow_that_ends_within_the_lag_costs_no_timer_and_no_message(mesh: Mesh) -> None:
    await publish(mesh.bus, flows.start(), flows.enriched(), flows.notified())
    async with running(mesh.bus):
        await mesh.until_settled("track")
        assert await mesh.messages() == 3
        info = await mesh.bus.request_json(f"$JS.API.STREAM.INFO.{TIMER}")
        assert info["state"]["last_seq"] == 0


async def test_p2_a_silent_step_is_retried_and_then_put_before_a_person(mesh: Mesh) -> None:
    await publish(mesh.bus, flows.start())
    async with running(mesh.bus):
        flow = await mesh.until_status(flows.FLOW_ID, "ESCALATED")
    assert _first_run(flow).attempt == 2
    assert [recorded.text for recorded in flow.divergences] == []


async def test_timers_that_are_armed_twice_are_one(mesh: Mesh) -> None:
    sequence = await publish(mesh.bus, flows.start())
    flow = await mesh.store.load("refund", flows.FLOW_ID, at_least=sequence)
    timer_schedule, wanted = TimerSchedule(mesh.bus), timers(flow)
    for _ in range(2):
        await timer_schedule.change("refund", flow.flow_id, before={}, after=wanted, last_sequence=sequence)
    assert len(await mesh.armed()) == len(wanted)
    await timer_schedule.change("refund", flow.flow_id, before=wanted, after={}, last_sequence=sequence)
    assert not await mesh.armed()


async def test_a_message_that_was_attended_to_is_not_read_again(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = Replica(mesh.bus, holder="test")
    await replica.catalog.refresh()
    sequence = await publish(mesh.bus, flows.start())
    attend = replica.reconciler.reconcile
    now = datetime.now(UTC)
    first = await attend("refund", flows.FLOW_ID, since=sequence, at_least=sequence, now=now)
    reads: list[object] = []
    monkeypatch.setattr(mesh.bus, "direct_get", lambda *names, **options: reads.append(options))
    assert await attend("refund", flows.FLOW_ID, since=sequence, at_least=sequence, now=now) is first
    assert not reads


async def test_what_came_since_is_read_on_from_where_the_flow_was_left(mesh: Mesh) -> None:
    replica = Replica(mesh.bus, holder="test")
    await replica.catalog.refresh()
    attend = replica.reconciler.reconcile
    now = datetime.now(UTC)
    begun = await publish(mesh.bus, flows.start())
    await attend("refund", flows.FLOW_ID, since=begun, at_least=begun, now=now)
    later = await publish(mesh.bus, flows.enriched())
    flow = await attend("refund", flows.FLOW_ID, since=later, at_least=later, now=now)
    assert flow == await replica.store.load("refund", flows.FLOW_ID)
    assert not any("enrich-" in name for name in await mesh.armed())


async def test_a_lease_held_by_another_replica_makes_the_flow_busy_until_it_is_given_back(bus: NatsBus) -> None:
    ours, theirs = (Leases(LeaseBucket(bus), holder=name, ttl=timedelta(seconds=2)) for name in ("a", "b"))
    async with ours.hold("flow.refund.x"):
        with pytest.raises(HandrailError, match="another replica") as refused:
            async with theirs.hold("flow.refund.x"):
                pass
        assert refused.value.reason == BUSY
    async with theirs.hold("flow.refund.x"):
        pass


async def test_a_lease_is_renewed_for_as_long_as_it_is_held(bus: NatsBus) -> None:
    bucket = LeaseBucket(bus)
    async with Leases(bucket, holder="a", ttl=timedelta(seconds=1)).hold("duty.sweep"):
        first = await bucket.entry("duty.sweep")
        assert first is not None
        renewed = await eventually(lambda: bucket.entry("duty.sweep"), lambda entry: entry != first)
        assert renewed is not None


def _first_run(flow: Flow) -> StepRun:
    return flow.runs["enrich", ids.start_id(flows.FLOW_ID)]


def _overdue(flow: Flow) -> bool:
    return datetime.now(UTC) > _first_run(flow).deadline
