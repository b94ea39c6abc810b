"""Async handlers that are called before anybody awaits them: the task, its context, its cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from handrail.agents.begun_call import BegunCall

WHO: ContextVar[str] = ContextVar("who", default="nobody")


async def test_what_does_not_wait_has_its_answer_at_once() -> None:
    async def handler() -> str:
        return "done"

    begun = BegunCall(handler())
    assert begun.answer == "done"
    assert [await begun, await begun] == ["done", "done"]


async def test_what_waits_has_no_answer_before_it_is_awaited() -> None:
    gate = asyncio.Event()

    async def handler() -> str:
        await gate.wait()
        await asyncio.sleep(0)
        return "done"

    begun = BegunCall(handler())
    assert begun.answer is None
    gate.set()
    assert await begun == "done"
    assert begun.answer == "done"


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), asyncio.CancelledError()])
@pytest.mark.parametrize("waits", [False, True])
async def test_what_it_raises_is_raised_where_it_is_awaited(error: BaseException, waits: bool) -> None:
    async def handler() -> None:
        if waits:
            await asyncio.sleep(0)
        raise error

    begun = BegunCall(handler())
    with pytest.raises(type(error)) as raised:
        await begun
    assert raised.value is error
    assert begun.answer is None


async def test_it_has_one_task_from_its_beginning_to_its_end() -> None:
    tasks = []

    async def handler() -> None:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0)
        tasks.append(asyncio.current_task())

    await BegunCall(handler())
    assert tasks == [asyncio.current_task()] * 2


async def test_a_time_limit_that_began_before_the_first_wait_ends_it() -> None:
    async def handler() -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            return "too late"
        return "in time"

    assert await BegunCall(handler()) == "too late"


async def test_a_group_of_tasks_that_began_before_the_first_wait_is_cancelled_with_it() -> None:
    ended: list[str] = []

    async def part(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def handler() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(part("one"))
            group.create_task(part("other"))

    await _cancelled(handler)
    assert sorted(ended) == ["one", "other"]


async def test_a_handler_may_clean_up_when_it_is_cancelled() -> None:
    cleaned: list[str] = []

    async def handler() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append("up")

    await _cancelled(handler)
    assert cleaned == ["up"]


async def test_what_one_handler_sets_in_its_context_no_other_sees() -> None:
    seen = []

    async def handler(name: str) -> None:
        seen.append(WHO.get())
        token = WHO.set(name)
        await asyncio.sleep(0)
        seen.append(WHO.get())
        WHO.reset(token)
        WHO.set(name)

    for name in ("ann", "bob"):
        await BegunCall(handler(name))
    assert [*seen, WHO.get()] == ["nobody", "ann", "nobody", "bob", "nobody"]


async def _cancelled(handler: Callable[[], Any]) -> None:
    """Begins a handler in a task, lets it wait, and cancels the task."""

    async def run() -> object:
        begun: Awaitable[object] = BegunCall(handler())
        return await begun

    task = asyncio.create_task(run())
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
