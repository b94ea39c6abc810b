"""Long work of the coordinator lets everything else have its turn, and takes no more of a core than it may."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from handrail.coordinator.reconcile import lag, pace, settle
from handrail.coordinator.reconcile.pace import Pace
from handrail.mesh.bus import RawMessage
from handrail.mesh.flow import Flow
from handrail.mesh.fold import fold
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.template import Template
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Recorded
from handrail.testing.memory import MemoryDelivery
from tests.support import flows
from tests.support.simulation import BEGINNING
from tests.support.stepped import SteppedBus, SteppedReplica

MILLISECOND = timedelta(milliseconds=1)


class Cpu:
    """CPU that the test spends."""

    def __init__(self) -> None:
        self.spent = timedelta()

    def __call__(self) -> float:
        return self.spent.total_seconds()


class Turns:
    """Counts the turns of the event loop from now on."""

    def __init__(self) -> None:
        self.count = 0
        self._next()

    def _next(self) -> None:
        self.count += 1
        asyncio.get_running_loop().call_soon(self._next)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each sleep; none is slept."""
    slept: list[float] = []

    async def note(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", note)
    return slept


async def test_others_have_their_turn_after_every_two_milliseconds_of_work(slept: list[float]) -> None:
    cpu = Cpu()
    keeping = Pace(clock=cpu)
    for _ in range(20):
        cpu.spent += MILLISECOND / 2
        await keeping.keep()
    assert slept == [0] * 5


async def test_work_with_a_share_rests_in_proportion_to_what_it_took(slept: list[float]) -> None:
    cpu = Cpu()
    keeping = Pace(share=0.05, clock=cpu)
    cpu.spent += 3 * MILLISECOND
    await keeping.keep()
    cpu.spent += MILLISECOND  # of somebody else
    keeping.resume()
    await keeping.keep()
    await keeping.keep(more=2 * MILLISECOND)
    assert slept == [pytest.approx(0.057), pytest.approx(0.038)]


async def test_the_end_of_the_lag_folds_and_acknowledges_one_flow_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "STRETCH", timedelta())
    bus = SteppedBus(BEGINNING)
    replica = SteppedReplica(bus, Catalog(bus))
    await replica.store.catalog.put(flows.stored(flows.template()))
    for nth in range(50):
        flow_id = ids.flow_id_from_key("refund", f"{nth}")
        for entry in (flows.start(flow_id), flows.enriched(flow_id), flows.notified(flow_id)):
            await bus.publish(entry.address.subject, entry.body)
    turns, folded, settled = Turns(), Counter[int](), Counter[int]()

    def counted(template: Template, history: Sequence[Recorded], *more: Any) -> Flow:
        folded[turns.count] += 1
        return fold(template, history, *more)

    def acked(_: timedelta | None) -> None:
        settled[turns.count] += 1

    monkeypatch.setattr(lag, "fold", counted)
    await replica.track([MemoryDelivery(message, 1, acked) for message in bus.messages[FLOW]])
    assert (folded.total(), settled.total()) == (50, 150)
    assert max(folded.values()) == 1
    assert max(settled.values()) == 3, "the messages of one flow"


async def test_the_broker_is_told_of_one_delivery_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "STRETCH", timedelta())
    turns, told = Turns(), Counter[int]()

    class Told(MemoryDelivery):
        def in_progress(self) -> None:
            told[turns.count] += 1

    held = settle.Held()
    for sequence in range(50):
        held.add(Told(RawMessage("flow.refund.x", b"", sequence, BEGINNING), 1, lambda _: None))
    await held.tell()
    assert (told.total(), max(told.values())) == (50, 1)
