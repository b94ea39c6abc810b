"""What agents say before a flow begins hides nothing of it, and what can't be folded any more is not listed."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from handrail.mesh.bus import NatsBus
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.subjects import Kind
from handrail.v1.decision_pb2 import FlowMigrated
from handrail.visibility.follow.load import Load
from tests.support.coordinator import coordinating
from tests.support.early import claiming, false_start, outcome
from tests.support.flows import FLOW_ID, decision, enriched, notified, start, template
from tests.support.followed import expected, following, found, until_covered
from tests.support.mesh import Mesh, publish
from tests.support.waiting import until

EARLY = {
    "an outcome": outcome(2, run=1),
    "a proposal": outcome(2, run=1, kind=Kind.PROPOSAL),
    "a false start": false_start(2),
    "of a version that is not stored": outcome(7, run=1),
}


@pytest.mark.parametrize("early", EARLY.values(), ids=EARLY)
async def test_p4_a_flow_is_listed_with_what_it_asks_people_whatever_was_said_before_it(
    mesh: Mesh, bus: NatsBus, engine: Engine, early: Entry
) -> None:
    await mesh.put(template(gated=True), template(version=2))
    async with coordinating(bus), following(bus, engine):
        for entry in (early, start(), enriched(kind=Kind.PROPOSAL)):
            await publish(bus, entry)
            await until_covered(bus, engine)
        await until(lambda: found(engine)["approval"])
        await until_covered(bus, engine)
    rows = found(engine)
    assert rows == await expected(bus, mesh.store)
    assert [row[1:6] for row in rows["flow"]] == [("refund", FLOW_ID, 1, "WAITING_APPROVAL", rows["flow"][0][5])]
    assert not rows["unfolded"]


async def test_p4_an_early_message_hides_nothing_in_processes_that_fold(
    mesh: Mesh, bus: NatsBus, engine: Engine
) -> None:
    await mesh.put(template(), template(version=2))
    ids = [f"{n:032x}" for n in range(1, 6)]
    async with following(bus, engine, load=Load(processes=2, many=1, much=0, few=0)):
        for entries in (
            [claiming(enriched(each), 2) for each in ids],
            [start(each) for each in ids],
            [notified(each) for each in ids],
        ):
            await publish(bus, *entries)
            await until_covered(bus, engine)
    rows = found(engine)
    assert rows == await expected(bus, mesh.store)
    assert [row[2] for row in rows["flow"]] == ids


async def moved_to_a_version_that_is_missing(mesh: Mesh) -> None:
    flow = await mesh.store.load("refund", FLOW_ID)
    moved = FlowMigrated(from_version=1, to_version=7)
    await mesh.store.append(flow, decision(moved, about="7", based_on=flow.last_sequence))


async def test_p4_a_flow_that_can_not_be_folded_any_more_is_not_listed_as_it_was(
    mesh: Mesh, bus: NatsBus, engine: Engine
) -> None:
    other = f"{1:032x}"
    await mesh.put(template(gated=True))
    async with following(bus, engine):
        await publish(bus, start(), start(other), notified())  # the last one becomes a divergence
        await until_covered(bus, engine)
        assert found(engine)["divergence"]
        await moved_to_a_version_that_is_missing(mesh)
        await until_covered(bus, engine)
        rows = found(engine)
        assert rows == await expected(bus, mesh.store)
        assert [row[2] for row in rows["flow"]] == [other]
        assert [row[:2] for row in rows["unfolded"]] == [("refund", FLOW_ID)]
        await mesh.put(template(version=7))
        await publish(bus, enriched(other))
        await until_covered(bus, engine)
    rows = found(engine)
    assert rows == await expected(bus, mesh.store)
    assert sorted(str(row[2]) for row in rows["flow"]) == sorted([other, FLOW_ID])
    assert rows["divergence"]


async def test_a_flow_is_found_once_its_template_is_there_and_anything_else_happens(
    mesh: Mesh, bus: NatsBus, engine: Engine
) -> None:
    await mesh.put(template())
    async with following(bus, engine):
        await publish(bus, claiming(start(), 7))
        await until_covered(bus, engine)
        assert found(engine)["unfolded"]
        await mesh.put(template(version=7))
        await publish(bus, start(f"{1:032x}"))  # of another flow, whose template is known
        await until_covered(bus, engine)
    rows = found(engine)
    assert rows == await expected(bus, mesh.store)
    assert len(rows["flow"]) == 2
