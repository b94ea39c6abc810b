"""Flows that were purged from the stream: readers tell them from flows that never began, and nothing reopens them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from handrail.coordinator.reconcile.timer_schedule import TimerSchedule
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import TIMER, purged
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.subjects import Kind
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import Quarantined
from tests.support import flows
from tests.support.coordinator import coordinating
from tests.support.late_messages import never_said, said_again
from tests.support.mesh import Mesh, publish
from tests.support.purging import left, old_flow_id, purge, quarantined, wipe, wipe_one
from tests.support.waiting import eventually

ARCHIVED = ErrorReason.ERROR_REASON_FLOW_ARCHIVED
NOT_FOUND = ErrorReason.ERROR_REASON_FLOW_NOT_FOUND

running = partial(coordinating, sweep_interval=timedelta(hours=1))


@pytest.fixture
async def mesh(mesh: Mesh) -> Mesh:
    """The refund of two steps, stored and active."""
    await mesh.put(flows.template())
    return mesh


async def put_away(mesh: Mesh, entry: Entry) -> Quarantined:
    """Waits until a message is in quarantine."""
    subject = entry.address.subject
    return (await eventually(lambda: quarantined(mesh.bus), lambda found: subject in found))[subject]


async def complete(mesh: Mesh, flow_id: str) -> int:
    """A flow from its first event to its last; returns its last sequence."""
    return await publish(mesh.bus, flows.start(flow_id), flows.enriched(flow_id), flows.notified(flow_id))


LATE: dict[str, Callable[[str], Entry]] = {
    "an outcome with an effect": flows.notified,
    "an outcome without one": flows.enriched,
}


@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
@pytest.mark.parametrize("in_hand", [True, False], ids=["in hand", "read again"])
async def test_p3_what_comes_after_a_purge_is_put_before_a_person_and_changes_nothing(
    mesh: Mesh, late: Callable[[str], Entry], in_hand: bool
) -> None:
    flow_id = old_flow_id()
    entry = late(flow_id)
    async with running(mesh.bus) as replica:
        last = await complete(mesh, flow_id)
        await mesh.until_settled("track", "decide")
        if in_hand:
            await replica.reconciler.flows.reaching(("refund", flow_id), last)
        await purge(mesh.bus, mesh.store, flow_id)
        await publish(mesh.bus, entry)
        kept = await put_away(mesh, entry)
        await mesh.until_settled("track", "decide")
        assert replica.reconciler.flows.get(("refund", flow_id)) is None
    assert kept.reason == ARCHIVED
    assert kept.body == entry.body
    assert ("may have had an effect" in kept.detail) is (entry.event.step == "notify")
    assert [each.event for each in await left(mesh.bus, flow_id)] == [entry.event]


async def test_p3_every_kind_of_late_message_is_put_before_a_person_and_no_decision_follows(mesh: Mesh) -> None:
    flow_id = old_flow_id()
    async with running(mesh.bus):
        last = await complete(mesh, flow_id)
        ended = await mesh.store.load("refund", flow_id, at_least=last)
        await mesh.until_settled("track", "decide")
        history = await purge(mesh.bus, mesh.store, flow_id)
        entries = [*said_again(history), *never_said(ended, history, datetime.now(UTC))]
        await publish(mesh.bus, *entries)
        late = {entry.address.subject for entry in entries}
        kept = await eventually(lambda: quarantined(mesh.bus), lambda found: late <= found.keys())
        await mesh.until_settled("track", "decide")
    assert {each.reason for each in kept.values()} == {ARCHIVED}
    assert {each.address.kind for each in entries} == {Kind.EVENT, Kind.FAILURE, Kind.PROGRESS, Kind.UNDONE}
    assert {each.address.subject for each in await left(mesh.bus, flow_id)} == late
    assert await mesh.armed() == set()


async def test_what_belongs_to_no_flow_is_not_called_archived(mesh: Mesh) -> None:
    entry = flows.notified(ids.flow_id_from_key("refund", "nobody's"))
    async with running(mesh.bus):
        await publish(mesh.bus, entry)
        assert (await put_away(mesh, entry)).reason == NOT_FOUND


async def test_a_flow_with_a_derived_id_is_archived_if_key_says_so(mesh: Mesh) -> None:
    await complete(mesh, flows.FLOW_ID)
    await purge(mesh.bus, mesh.store, flows.FLOW_ID)
    await publish(mesh.bus, flows.notified())
    with pytest.raises(HandrailError) as refused:
        await mesh.store.load_newest("refund", flows.FLOW_ID)
    assert refused.value.reason == ARCHIVED
    record = await purged.recorded(mesh.bus, "*", flows.FLOW_ID)
    assert record == ("refund", flows.FLOW_ID, 1)


async def test_p7_a_read_of_a_purged_flow_ends(mesh: Mesh) -> None:
    """The broker says nothing of how far a replica is that has nothing on the subject."""
    flow_id = old_flow_id()
    last = await complete(mesh, flow_id)
    flow = await mesh.store.load("refund", flow_id, at_least=last)
    await wipe(mesh.bus, flow_id)
    assert await mesh.store.read("refund", flow_id, at_least=last) == []
    for read in (mesh.store.load("refund", flow_id, at_least=last), mesh.store.catch_up(flow, at_least=last)):
        with pytest.raises(HandrailError) as refused:
            await read
        assert refused.value.reason == ARCHIVED


async def test_p3_a_flow_that_was_read_before_its_purge_is_not_gone_on_with(mesh: Mesh) -> None:
    flow_id = old_flow_id()
    await publish(mesh.bus, flows.start(flow_id))
    flow = await mesh.store.load("refund", flow_id)
    await wipe(mesh.bus, flow_id)
    decided = flows.decision(flows.told(), flow_id=flow_id, based_on=flow.last_sequence)
    with pytest.raises(HandrailError) as refused:
        await mesh.store.append(flow, decided)
    assert refused.value.reason == ARCHIVED
    late = await publish(mesh.bus, flows.enriched(flow_id))
    with pytest.raises(HandrailError) as refused:
        await mesh.store.catch_up(flow, at_least=late)
    assert refused.value.reason == ARCHIVED


async def test_p3_a_flow_that_was_read_before_its_purge_was_cut_off_is_not_gone_on_with(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purged, "_SURELY_THERE", timedelta())
    flow_id = old_flow_id()
    last = await complete(mesh, flow_id)
    flow = await mesh.store.load("refund", flow_id, at_least=last)
    await wipe_one(mesh.bus, flows.start(flow_id))
    late = await publish(mesh.bus, flows.decision(flows.told(), flow_id=flow_id))
    with pytest.raises(HandrailError) as refused:
        await mesh.store.catch_up(flow, at_least=late)
    assert refused.value.reason == ARCHIVED


async def test_a_timer_of_a_purged_flow_is_dropped_at_once(mesh: Mesh) -> None:
    flow_id = old_flow_id()
    last = await publish(mesh.bus, flows.start(flow_id))
    flow = await mesh.store.load("refund", flow_id)
    await wipe(mesh.bus, flow_id)
    await TimerSchedule(mesh.bus).change(
        "refund", flow_id, before={}, after={"step-1": flow.start_time}, last_sequence=last
    )
    async with running(mesh.bus):
        info = await eventually(partial(mesh.durable, "due"), lambda info: bool(info["ack_floor"]["consumer_seq"]))
        assert info["delivered"]["consumer_seq"] == 1
    assert await mesh.messages(TIMER) == 0
    assert await left(mesh.bus, flow_id) == []
