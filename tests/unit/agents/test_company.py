"""Who runs beside whom in a worker."""

from __future__ import annotations

import asyncio

import pytest

from handrail.agents import company
from handrail.agents.company import Company
from handrail.agents.errors import Busy


async def rest() -> None:
    """Let everything run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_that_runs_alone_waits_for_those_that_run_and_holds_up_those_that_come() -> None:
    together = Company()
    order: list[str] = []

    async def run(name: str, ends: asyncio.Event, *, alone: bool) -> None:
        seat = await together.join(alone=alone)
        order.append(f"{name} begins")
        await ends.wait()
        order.append(f"{name} ends")
        seat.leave()

    ends = {name: asyncio.Event() for name in ("a", "b", "guilty", "other", "late")}
    tasks = []
    for name in ends:
        tasks.append(asyncio.ensure_future(run(name, ends[name], alone=name in ("guilty", "other"))))
        await rest()
    for name in ("a", "b", "guilty", "other", "late"):
        ends[name].set()
        await rest()
    await asyncio.gather(*tasks)
    assert order == [
        *("a begins", "b begins", "a ends", "b ends"),
        *("guilty begins", "guilty ends", "other begins", "other ends", "late begins", "late ends"),
    ]


async def test_others_are_handed_back_where_the_one_alone_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(company, "_PATIENCE", company._PATIENCE * 0)
    together = Company()
    seat = await together.join(alone=True)
    with pytest.raises(Busy, match="runs alone"):
        await together.join(alone=False)
    seat.leave()
    seat.leave()
    await together.join(alone=False)


async def test_one_that_gives_up_waiting_to_be_alone_holds_up_nobody() -> None:
    together = Company()
    await together.join(alone=False)
    waiting = asyncio.ensure_future(together.join(alone=True))
    await rest()
    waiting.cancel()
    await rest()
    other = asyncio.ensure_future(together.join(alone=False))
    await rest()
    assert other.done()
