"""P7 with an index: the sweep finds what was missed without a walk, and no promise rests on what the index says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, update

from handrail.coordinator.lists.index import Index, IndexSettings
from handrail.coordinator.reconcile import open_flows, sweep, sweep_walk
from handrail.coordinator.reconcile.sweep_marks import Mark, read_mark, write_mark
from handrail.mesh.bus import NatsBus
from handrail.mesh.flow import Flow
from handrail.mesh.streams import TIMER, ensure_streams
from handrail.v1.decision_pb2 import FlowHalted, HaltMode
from handrail.visibility.index import schema
from handrail.visibility.index.writer import OTHERS
from tests.support import flows
from tests.support.followed import following, until_covered
from tests.support.indexed import secret_file, serving
from tests.support.mesh import Mesh, name_of_status
from tests.support.sweeping import House, another

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


class Indexed(House):
    """A sweep beside a real index, which is served until `stop_serving`."""

    def __init__(self, mesh: Mesh, engine: Engine, index: Index, served: AsyncExitStack) -> None:
        super().__init__(mesh, index)
        self.engine = engine
        self._served = served

    async def stop_serving(self) -> None:
        """Nobody answers questions from now on."""
        await self._served.aclose()

    async def caught_up(self) -> None:
        """Waits until the index has what FLOW has."""
        await until_covered(self.mesh.bus, self.engine)

    async def mark(self) -> Mark:
        """How far the sweeps came."""
        return await read_mark(self.mesh.bus)

    def change(self, statement: Any) -> None:
        """Has the index say something else."""
        with self.engine.begin() as connection:
            connection.execute(statement)


@pytest.fixture
async def house(mesh: Mesh, bus: NatsBus, engine: Engine, tmp_path: Path) -> AsyncIterator[Indexed]:
    """With the refund known, and a first sweep done."""
    await mesh.put(flows.template())
    secret = secret_file(tmp_path)
    async with following(bus, engine), AsyncExitStack() as served:
        port = await served.enter_async_context(serving(bus, engine, secret))
        index = Index(IndexSettings(address=f"127.0.0.1:{port}", secret=secret))
        house = Indexed(mesh, engine, index, served)
        await house.replica.catalog.refresh()
        await house.sweep().sweep()
        yield house
        await index.close()


async def test_p7_a_flow_that_lost_timers_and_decisions_is_found_without_a_walk(mesh: Mesh, house: Indexed) -> None:
    halt = FlowHalted(mode=HaltMode.HALT_MODE_CANCEL, by="ola", reason="no longer wanted")
    await house.publish(flows.start(another("two")))
    sequence = await house.publish(flows.start(), flows.enriched())
    last = await house.publish(flows.decision(halt, based_on=sequence), flows.notified())
    await house.publish(*(each(another("over")) for each in (flows.start, flows.enriched, flows.notified)))
    await house.caught_up()
    assert await house.sweep().sweep() == 2
    assert name_of_status(await mesh.flow(flows.FLOW_ID)) == "CANCELLED"
    assert await house.armed() == {another("two")}
    mark = await house.mark()
    assert (mark.sequence, mark.seen) == (0, last + 3)


async def test_a_flow_is_looked_at_once_after_each_last_message(mesh: Mesh, house: Indexed) -> None:
    await house.publish(flows.start(), flows.start(another("two")))
    await house.caught_up()
    assert await house.sweep(lag=timedelta(hours=1)).sweep() == 0
    assert await house.sweep().sweep() == 2
    assert await house.sweep().sweep() == 0
    await house.publish(flows.enriched())
    await house.caught_up()
    assert await house.sweep().sweep() == 1


async def test_only_timers_that_are_missing_are_armed(mesh: Mesh, house: Indexed) -> None:
    await house.publish(flows.start(), flows.start(another("two")))
    await house.caught_up()
    await house.sweep().sweep()
    armed = sorted(await mesh.armed())
    lost = next(each for each in armed if flows.FLOW_ID in each)
    await mesh.bus.request_json(f"$JS.API.STREAM.PURGE.{TIMER}", {"filter": lost})
    before = await last_timer(mesh)
    await write_mark(mesh.bus, replace(await house.mark(), seen=0))
    assert await house.sweep().sweep() == 2
    assert sorted(await mesh.armed()) == armed
    assert await last_timer(mesh) == before + 1


async def last_timer(mesh: Mesh) -> int:
    """The number of timers that were ever armed or fired."""
    return int((await mesh.bus.request_json(f"$JS.API.STREAM.INFO.{TIMER}"))["state"]["last_seq"])


async def test_p7_if_the_index_dies_midway_the_rest_is_found_by_a_walk(
    mesh: Mesh, house: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_flows, "_PAGE", 2)
    names = [another(f"{nth}") for nth in range(6)]
    last = await house.publish(*map(flows.start, names))
    await house.caught_up()
    reconcile = house.replica.reconciler.reconcile

    async def and_then_nobody_answers(*flow: str, **options: Any) -> Flow:
        await house.stop_serving()
        return await reconcile(*flow, **options)

    monkeypatch.setattr(house.replica.reconciler, "reconcile", and_then_nobody_answers)
    assert await house.sweep().sweep() == 6
    assert await house.armed() == set(names)
    mark = await house.mark()
    assert (mark.sequence, mark.seen) == (0, last), "the walk went on where the index ended"
    monkeypatch.undo()
    await house.publish(flows.start())
    assert await house.sweep().sweep() == 1


@pytest.mark.parametrize("late, share", [(timedelta(), 0.2), (timedelta(hours=1), 0.05)])
async def test_p7_open_flows_that_are_late_get_more_of_a_core(
    mesh: Mesh, house: Indexed, monkeypatch: pytest.MonkeyPatch, late: timedelta, share: float
) -> None:
    await house.publish(flows.start(), flows.start(another("two")))
    await house.caught_up()
    monkeypatch.setattr(sweep, "LATE", late)
    sweeping, shares = house.sweep(), set[float]()
    reconcile = house.replica.reconciler.reconcile

    async def watched(*flow: str, **options: Any) -> Flow:
        shares.add(sweeping._pace.share)
        return await reconcile(*flow, **options)

    monkeypatch.setattr(house.replica.reconciler, "reconcile", watched)
    assert await sweeping.sweep() == 2
    assert shares == {share}


async def test_a_walk_ends_once_the_index_answers_again(
    mesh: Mesh, house: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_walk, "_PAGE", 1)
    monkeypatch.setattr(sweep_walk, "_WINDOW", 1)
    names = [another(f"{nth}") for nth in range(6)]
    last = await house.publish(*map(flows.start, names))
    await house.caught_up()
    reconcile = house.replica.reconciler.reconcile
    house.change(update(schema.position).values(sequence=0))

    async def and_it_catches_up(*flow: str, **options: Any) -> Flow:
        house.change(update(schema.position).values(sequence=last))
        return await reconcile(*flow, **options)

    monkeypatch.setattr(house.replica.reconciler, "reconcile", and_it_catches_up)
    assert await house.sweep().sweep() == 6
    assert await house.armed() == set(names)
    mark = await house.mark()
    assert mark.sequence < mark.seen == last


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(delete(schema.flow), id="it has no such flow"),
        pytest.param(update(schema.flow).values(ended=schema.flow.c.updated), id="it is over"),
        pytest.param(update(schema.flow).values(last_sequence=0), id="it was seen before"),
    ],
)
async def test_p7_a_flow_that_the_index_lacks_is_found_by_the_walk_of_each_hour(
    mesh: Mesh, house: Indexed, monkeypatch: pytest.MonkeyPatch, lie: Any
) -> None:
    last = await house.publish(flows.start())
    await house.caught_up()
    house.change(lie)
    assert await house.sweep().sweep() == 0
    assert (await house.mark()).sequence == 0
    monkeypatch.setattr(sweep, "WALKS_EVERY", timedelta())  # an hour is over
    assert await house.sweep().sweep() == 1
    assert await house.armed() == {flows.FLOW_ID}
    assert (await house.mark()).sequence == last


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(update(schema.position).values(sequence=schema.position.c.sequence - 1), id="behind"),
        pytest.param(update(schema.position).values(stream_created="once"), id="of another stream"),
        pytest.param(update(schema.position).values(time=None, sequence=0), id="begun anew"),
        pytest.param(update(schema.position).values(time=NOON), id="of a stream that was restored"),
        pytest.param(
            schema.unfolded.insert().values(flow_type=OTHERS[0], flow_id=OTHERS[1], why="", sequence=1, time=NOON),
            id="without names for all flows",
        ),
    ],
)
async def test_p7_an_index_that_does_not_cover_the_stream_is_not_believed(
    mesh: Mesh, house: Indexed, state: Any
) -> None:
    last = await house.publish(flows.start())
    await house.caught_up()
    house.change(delete(schema.flow))
    house.change(state)
    assert await house.sweep().sweep() == 1
    assert await house.armed() == {flows.FLOW_ID}
    assert (await house.mark()).sequence == last


async def test_p7_everything_is_walked_over_when_the_timers_were_made_anew(mesh: Mesh, house: Indexed) -> None:
    last = await house.publish(flows.start())
    await house.caught_up()
    await house.sweep().sweep()
    await mesh.bus.request_json(f"$JS.API.STREAM.DELETE.{TIMER}")
    await ensure_streams(mesh.bus)
    house.change(delete(schema.flow))
    assert await house.sweep().sweep() == 1
    assert await house.armed() == {flows.FLOW_ID}
    assert (await house.mark()).sequence == last


async def test_flows_that_the_index_could_not_fold_are_looked_at_too(mesh: Mesh, house: Indexed) -> None:
    await house.publish(flows.enriched(), flows.start(another("two")), flows.enriched(another("three")))
    await house.caught_up()
    assert await house.sweep().sweep() == 3
    assert await house.armed() == {another("two")}
