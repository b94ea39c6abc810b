"""P7: much that is due at once is worked off in order: nothing is handed out twice, nothing ends, nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from handrail.coordinator.reconcile import settle
from handrail.coordinator.reconcile.replica import Replica
from handrail.coordinator.reconcile.timer_schedule import TimerSchedule
from handrail.mesh.flow import Flow
from handrail.mesh.fold import fold
from handrail.mesh.streams import flow_store
from handrail.mesh.template import Template
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Recorded
from tests.support import flows
from tests.support.coordinator import running
from tests.support.mesh import COORDINATORS, Mesh, name_of_status, publish_at_once
from tests.support.waiting import eventually, until

NUMBER = 3000

WAIT = timedelta(seconds=6)
"""The broker's wait for an ack: longer than a busy machine leaves a process waiting. The backlog is held for longer."""


@pytest.fixture
async def mesh(mesh: Mesh) -> Mesh:
    """The refund, whose first step is given up soon."""
    await mesh.put(flows.template(timeout=timedelta(seconds=0.5)))
    return mesh


@asynccontextmanager
async def impatiently(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Replica]:
    """A replica whose deliveries come again after `WAIT` without an ack."""
    monkeypatch.setattr(settle, "ACK_WAIT", WAIT)
    replica = Replica(mesh.bus, holder="test", sweep_interval=timedelta(hours=1))
    await replica.prepare(replicas=1)
    for durable in COORDINATORS:
        await mesh.set_ack_wait(durable, WAIT)
    async with running(replica):
        yield replica


@asynccontextmanager
async def held(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Lets no timer be set, without which nothing is acknowledged, until more than `WAIT` after the block."""
    change, over, turn = TimerSchedule.change, asyncio.Event(), asyncio.Semaphore(16)

    async def after(*arguments: Any, **options: Any) -> None:
        await over.wait()
        async with turn:  # all of them at once would be a burst that no backlog makes
            await change(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(TimerSchedule, "change", after)
        yield
        await asyncio.sleep(1.3 * WAIT.total_seconds())  # the broker's wait has to pass
        over.set()


async def until_handed_out_once(mesh: Mesh, durable: str) -> None:
    """Waits until a durable's messages are acknowledged, all of them on their first delivery."""

    async def left() -> int:
        assert not (await mesh.durable(durable)).get("num_redelivered"), f"{durable} hands out what is worked on"
        return await mesh.unsettled(durable)

    await eventually(left, lambda number: number == 0, within=60)


async def test_p7_a_backlog_longer_than_the_brokers_wait_is_handed_out_once(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = [ids.flow_id_from_key("refund", str(number)) for number in range(NUMBER)]
    await publish_at_once(mesh.bus, map(flows.start, everyone))
    async with impatiently(mesh, monkeypatch) as replica:
        # First all events, then, while they are at it, all time-outs.
        async with held(monkeypatch):
            await eventually(lambda: mesh.durable("track"), lambda info: info["num_ack_pending"] == NUMBER)
        await until_handed_out_once(mesh, "track")
        await mesh.until_messages(3 * NUMBER)
        await until_handed_out_once(mesh, "due")
        assert not list(replica.troubles)
    assert {name_of_status(await mesh.flow(each)) for each in everyone} == {"ESCALATED"}


async def test_p7_a_flow_that_breaks_the_fold_keeps_no_other_from_its_end(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = [ids.flow_id_from_key("refund", str(number)) for number in range(100)]
    poisoned = everyone[42]
    looked = 0

    def broken(template: Template, history: Sequence[Recorded], *more: Any) -> Flow:
        nonlocal looked
        if history and history[0].event.flow_id == poisoned:
            looked += 1
            raise ZeroDivisionError("a bug in the fold")
        return fold(template, history, *more)

    with monkeypatch.context() as patched:
        patched.setattr(flow_store, "fold", broken)
        patched.setattr(settle, "_FIRST_WAIT_AFTER_A_BUG", timedelta(seconds=0.1))
        async with impatiently(mesh, monkeypatch) as replica:
            await publish_at_once(mesh.bus, map(flows.start, everyone))
            await mesh.until_messages(3 * 99 + 1)
            await until(lambda: looked >= 3)
            assert {(each.about, each.error) for each in replica.troubles} == {(poisoned, "BUG")}
            patched.setattr(flow_store, "fold", fold)
            await mesh.until_messages(3 * 100)
            await until(lambda: not list(replica.troubles))
