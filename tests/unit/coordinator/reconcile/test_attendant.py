"""What the sweep takes is measured flow by flow, and it rests in proportion."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from handrail.coordinator.reconcile.attendant import Attendant, Meter
from handrail.coordinator.reconcile.pace import Pace
from handrail.coordinator.reconcile.troubles import Troubles
from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason


class Cpu:
    """CPU that the test spends, in seconds."""

    def __init__(self) -> None:
        self.spent = 0.0

    def __call__(self) -> float:
        return self.spent


async def test_what_others_do_while_work_waits_does_not_count() -> None:
    cpu = Cpu()
    meter = Meter(cpu)

    async def work() -> str:
        cpu.spent += 1
        await asyncio.sleep(0)
        cpu.spent += 2
        return "done"

    async def of_others() -> None:
        for _ in range(3):
            cpu.spent += 100
            await asyncio.sleep(0)

    done, *_ = await asyncio.gather(meter.measured(work()), of_others(), meter.measured(work()))
    assert done == "done"
    assert meter.spent == 6


async def test_measured_work_fails_and_is_cancelled_like_any_other() -> None:
    meter, ended = Meter(Cpu()), asyncio.Event()

    async def broken() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(ZeroDivisionError):
        await meter.measured(broken())
    task = asyncio.create_task(meter.measured(endless()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


class Reconciling:
    """Reconciles nothing, a few flows at a time, and fails for some."""

    def __init__(self) -> None:
        self.at_once = 0
        self.most_at_once = 0

    async def reconcile(self, flow_type: str, flow_id: str, **options: Any) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if flow_id == "broken":
            raise ZeroDivisionError
        if flow_id == "gone":
            raise HandrailError(ErrorReason.ERROR_REASON_FLOW_ARCHIVED, "it was purged")


async def test_a_few_flows_at_a_time_and_then_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    reconciler, rested, sleep = Reconciling(), 0.0, asyncio.sleep

    async def note(seconds: float) -> None:
        nonlocal rested
        rested += seconds
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", note)
    attendant = Attendant(reconciler, Troubles(), Pace(share=0.05))  # type: ignore[arg-type]
    some = [("refund", f"{nth}", 1) for nth in range(100)]
    failed = await attendant.attend([*some, ("refund", "broken", 1), ("refund", "gone", 1)], timers_at_least=0)
    assert failed == {("refund", "broken", 1)}
    assert attendant.attended == 102
    assert reconciler.most_at_once == 4
    assert rested >= 19 * 100 * 0.0003, "what the connection takes for a flow counts, and 5 % of the time is work"
