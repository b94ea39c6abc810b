"""P7: the sweep finds every flow that is not over and that nobody looks at, and leaves the others alone."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handrail.coordinator.reconcile import pace, sweep, sweep_walk
from handrail.coordinator.reconcile.overdue import Overdue
from handrail.coordinator.reconcile.replica import Replica
from handrail.coordinator.reconcile.sweep_marks import first_after, read_mark, read_streams
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow
from handrail.mesh.fold import fold
from handrail.mesh.streams import TIMER, ensure_streams, flow_store
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import Entry, Recorded
from handrail.v1.decision_pb2 import FlowHalted, HaltMode
from tests.support import flows
from tests.support.coordinator import coordinating
from tests.support.lagging import BehindNatsBus
from tests.support.mesh import Mesh, name_of_status, publish
from tests.support.nats_server import NatsServer
from tests.support.sweeping import House, another
from tests.support.waiting import eventually, until

NONE = timedelta()


@pytest.fixture
async def mesh(mesh: Mesh) -> Mesh:
    """The refund."""
    await mesh.put(flows.template())
    return mesh


@pytest.fixture
async def house(mesh: Mesh) -> House:
    """With the refund known."""
    house = House(mesh)
    await house.replica.catalog.refresh()
    return house


def complete(flow_id: str) -> Iterable[Entry]:
    """All messages of a flow."""
    return flows.start(flow_id), flows.enriched(flow_id), flows.notified(flow_id)


async def test_p7_a_flow_that_lost_its_timers_is_found_and_given_them_again(mesh: Mesh, house: House) -> None:
    await house.publish(flows.start())
    assert await house.sweep().sweep() == 1
    assert await house.armed() == {flows.FLOW_ID}


async def test_p7_a_flow_is_found_that_is_not_over_though_it_holds_a_completing_message(
    mesh: Mesh, house: House
) -> None:
    # The halt came before the last event, and everybody who should have looked is gone.
    halt = FlowHalted(mode=HaltMode.HALT_MODE_CANCEL, by="ola", reason="no longer wanted")
    sequence = await house.publish(flows.start(), flows.enriched())
    await house.publish(flows.decision(halt, based_on=sequence), flows.notified())
    assert name_of_status(await mesh.flow(flows.FLOW_ID)) == "COMPENSATING"
    assert await house.sweep().sweep() == 1
    assert name_of_status(await mesh.flow(flows.FLOW_ID)) == "CANCELLED"


async def test_flows_that_are_over_are_left_alone(mesh: Mesh, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.publish(*complete(flows.FLOW_ID))
    last = await house.publish(*complete(another("two")))
    house.finished.add(range(4, last + 1))
    folded: list[object] = []

    def counted(*args: Any) -> Flow:
        folded.append(args)
        return fold(*args)

    monkeypatch.setattr(flow_store, "fold", counted)
    assert await house.sweep().sweep() == 0
    assert len(folded) == 1, "what this replica folded already is not folded again"


async def test_what_this_replica_saw_whole_is_not_even_read(
    mesh: Mesh, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = await house.publish(*complete(flows.FLOW_ID))
    house.finished.add(range(1, last + 1))
    with monkeypatch.context() as unread:
        unread.setattr(sweep_walk, "scan", None)
        assert await house.sweep().sweep() == 0
    assert (await read_mark(mesh.bus)).sequence == last
    await house.publish(flows.start(another("two")))
    assert await house.sweep().sweep() == 1


async def test_it_folds_one_flow_at_a_time_and_rests_after_each_that_it_reconciles(
    mesh: Mesh, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for nth in range(20):
        await house.publish(*complete(another(f"{nth}")))
    for nth in range(20, 25):
        await house.publish(flows.start(another(f"{nth}")))
    turns, folded, rested = 0, Counter[int](), 0.0
    sleep = asyncio.sleep

    def counted(*args: Any) -> Flow:
        folded[turns] += 1
        return fold(*args)

    async def noted(seconds: float) -> None:
        nonlocal turns, rested
        turns += 1
        rested += seconds
        await sleep(0)

    monkeypatch.setattr(flow_store, "fold", counted)
    monkeypatch.setattr(pace, "STRETCH", timedelta())
    monkeypatch.setattr(asyncio, "sleep", noted)
    assert await house.sweep().sweep() == 5
    assert folded.total() == 30
    assert max(folded.values()) == 1
    assert rested >= 5 * 0.019, "a flow that is reconciled takes a millisecond, and that is 5 % of the time"


async def test_p7_after_a_power_failure_messages_with_the_sequences_of_lost_ones_are_looked_at(
    mesh: Mesh, nats_server: NatsServer
) -> None:
    await Replica(mesh.bus, holder="test").prepare(replicas=1)
    await publish(mesh.bus, flows.start(), flows.enriched())
    data, kept = nats_server.folder / nats_server.name, nats_server.folder / "kept"
    await asyncio.to_thread(nats_server.stop)
    await asyncio.to_thread(shutil.copytree, data, kept)
    await asyncio.to_thread(nats_server.start)
    async with coordinating(mesh.bus, sweep_interval=timedelta(hours=1)) as replica:
        await eventually(mesh.armed)
        lost = await publish(mesh.bus, flows.notified())
        await until(lambda: lost in replica.finished)
        await asyncio.to_thread(nats_server.kill)
        await asyncio.to_thread(shutil.rmtree, data)
        await asyncio.to_thread(shutil.copytree, kept, data)
        await asyncio.to_thread(nats_server.start)
        await until(lambda: mesh.bus.connection.connected)
        assert await publish(mesh.bus, flows.start(another("two"))) == lost
        again = await publish(mesh.bus, flows.notified())
        await until(lambda: again in replica.finished)
        assert lost not in replica.finished


async def test_p7_a_server_that_lags_does_not_make_the_sweep_pass_by_messages(mesh: Mesh, house: House) -> None:
    first = await house.publish(*complete(flows.FLOW_ID))
    bus = BehindNatsBus(mesh.bus.connection)
    house.mesh = Mesh(bus, mesh.catalog)
    assert await house.sweep().sweep() == 0
    missed = await house.publish(flows.start(another("two")))
    bus.lag(as_of=first)
    assert await house.sweep().sweep() == 0
    assert (await read_mark(bus)).sequence == first
    bus.lag(reads=0)
    assert await house.sweep().sweep() == 1
    assert (await read_mark(bus)).sequence == missed


async def test_the_leader_says_what_comes_next(mesh: Mesh, house: House) -> None:
    last = await house.publish(*complete(flows.FLOW_ID))
    assert [await first_after(mesh.bus, sequence) for sequence in (0, last - 1, last)] == [1, last, None]


async def test_what_failed_is_looked_at_again_while_a_walk_goes_on(
    mesh: Mesh, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.publish(flows.start(), flows.start(another("two")))
    failures = 2

    def broken(template: Template, history: Sequence[Recorded], *more: Any) -> Flow:
        nonlocal failures
        if failures:
            failures -= 1
            raise ZeroDivisionError("a bug in the fold")
        return fold(template, history, *more)

    monkeypatch.setattr(flow_store, "fold", broken)
    assert await house.sweep(interval=NONE).sweep() == 3
    assert await house.armed() == {flows.FLOW_ID, another("two")}
    assert (await read_mark(mesh.bus)).left == ()


async def test_a_walk_over_the_whole_stream_continues_where_it_was_interrupted(
    mesh: Mesh, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.publish(*complete(flows.FLOW_ID))
    last = await house.publish(flows.start(another("two")))
    monkeypatch.setattr(sweep_walk, "_PAGE", 1)
    monkeypatch.setattr(sweep_walk, "_WINDOW", 1)
    reconcile = house.replica.reconciler.reconcile

    async def broken(flow_type: str, flow_id: str, **options: Any) -> Flow:
        if flow_id == another("two"):
            raise ZeroDivisionError("a bug")
        return await reconcile(flow_type, flow_id, **options)

    with monkeypatch.context() as interrupted:
        interrupted.setattr(sweep, "_LEFT_AT_MOST", 0)
        interrupted.setattr(house.replica.reconciler, "reconcile", broken)
        with pytest.raises(HandrailError, match="can't be reconciled"):
            await house.sweep().sweep()
    mark = await read_mark(mesh.bus)
    assert 0 < mark.sequence < last
    assert (await read_streams(mesh.bus)).why_not_behind(mark) == ""
    await house.sweep().sweep()
    assert await house.armed() == {another("two")}


async def test_only_what_is_new_is_looked_at_and_only_once_it_is_old_enough(mesh: Mesh, house: House) -> None:
    await house.publish(flows.start())
    assert await house.sweep(lag=timedelta(hours=1)).sweep() == 0
    assert await house.sweep().sweep() == 1
    assert await house.sweep().sweep() == 0
    await house.publish(flows.start(another("two")))
    assert await house.sweep().sweep() == 1
    # Its messages lie on both sides of the mark.
    await house.publish(flows.enriched(another("two")))
    assert await house.sweep().sweep() == 1
    assert (await read_mark(mesh.bus)).sequence == 3


async def test_p7_everything_is_looked_at_when_the_timers_were_made_anew(mesh: Mesh, house: House) -> None:
    await house.publish(flows.start())
    assert await house.sweep().sweep() == 1
    await mesh.bus.request_json(f"$JS.API.STREAM.DELETE.{TIMER}")
    await ensure_streams(mesh.bus)
    assert await house.armed() == set()
    assert await house.sweep().sweep() == 1
    assert await house.armed() == {flows.FLOW_ID}
    assert await house.sweep().sweep() == 0


async def test_a_flow_that_cannot_be_attended_to_is_left_and_looked_at_again(
    mesh: Mesh, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.publish(flows.start(), flows.start(another("two")))

    def broken(template: Template, history: Sequence[Recorded], *more: Any) -> Flow:
        if any(recorded.event.flow_id == flows.FLOW_ID for recorded in history):
            raise ZeroDivisionError("a bug in the fold")
        return fold(template, history, *more)

    with monkeypatch.context() as patched:
        patched.setattr(flow_store, "fold", broken)
        assert await house.sweep().sweep() == 2
        assert await house.armed() == {another("two")}
    (trouble,) = house.replica.troubles
    assert trouble.about == flows.FLOW_ID
    assert await house.sweep().sweep() == 1, "only the remaining flow"
    assert await house.armed() == {flows.FLOW_ID, another("two")}
    assert not list(house.replica.troubles)


async def test_flows_are_found_whose_timers_are_long_overdue(mesh: Mesh, house: House) -> None:
    # Nobody handles what fires: one timer fires, one is still to come.
    past, later = "deadline-1000", f"deadline-{int(datetime.now(UTC).timestamp() + 3600) * 1000}"
    for flow_id, name, due in (
        (flows.FLOW_ID, past, datetime.fromtimestamp(1, UTC)),
        (another("two"), later, datetime.now(UTC) + timedelta(hours=1)),
    ):
        await house.replica.reconciler._timer_schedule.change(
            "refund", flow_id, before={}, after={name: due}, last_sequence=7
        )
    await eventually(lambda: house.armed(), lambda left: left == {another("two")})
    assert await Overdue(mesh.bus).flows() == {}, "nothing is a minute late"
    assert await Overdue(mesh.bus, grace=NONE).flows() == {("refund", flows.FLOW_ID): 7}
    before_all = Overdue(mesh.bus, grace=-timedelta(days=1))
    assert await before_all.flows() == {("refund", flows.FLOW_ID): 7, ("refund", another("two")): 0}
    # Looking took nothing away.
    assert await house.armed() == {another("two")}
