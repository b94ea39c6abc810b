"""Waiting for an event, and between tries."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from handrail.mesh.waiting import Patience, pause

HOUR = timedelta(hours=1)


async def test_each_wait_is_twice_the_one_before_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", note)
    patience = Patience(HOUR, first=timedelta(seconds=1), longest=timedelta(seconds=3))
    assert [await patience.wait() for _ in range(4)] == [True] * 4
    assert waits == [1, 2, 3, 3]


async def test_patience_that_would_end_before_the_next_try_ends_at_once() -> None:
    patience = Patience(timedelta(minutes=59), first=HOUR)
    assert not await patience.wait()
    assert patience.left > timedelta(minutes=58)
    assert Patience(timedelta(0)).left == timedelta(0)


async def test_a_pause_ends_with_its_event_or_its_time() -> None:
    event = asyncio.Event()
    await pause(event, timedelta(0))
    assert not event.is_set()
    event.set()
    async with asyncio.timeout(10):
        await pause(event, HOUR)


async def test_a_cancellation_that_comes_together_with_the_event_is_not_lost() -> None:
    event = asyncio.Event()
    task = asyncio.create_task(pause(event, HOUR))
    await asyncio.sleep(0)
    event.set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
