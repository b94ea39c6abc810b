"""Waiting for a call's message: strangers displace each other, the longest wait first, and never a verified caller."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from handrail.coordinator.api.authorization import set_caller
from handrail.coordinator.api.interceptors import Call
from handrail.coordinator.api.receiving import Receiving
from handrail.coordinator.decide.caller import Caller
from handrail.mesh.errors import HandrailError


class Sender:
    """The caller's side of a call: what it sends, when it sends it."""

    def __init__(self) -> None:
        self._sent: asyncio.Queue[object] = asyncio.Queue()

    def send(self, message: object) -> None:
        self._sent.put_nowait(message)

    async def read(self) -> object:
        return await self._sent.get()


def begin(receiving: Receiving, sender: Sender, *, caller: str = "") -> asyncio.Task[object]:
    async def proceed(_: Call) -> None:
        """The message is there."""

    async def received() -> object:
        if caller:
            set_caller(Caller(caller), "/a.Service/Method")
        call = Call("/a.Service/Method", {}, streams=False, context=cast("Any", sender))
        await receiving.around(call, proceed)
        return call.request

    return asyncio.create_task(received())


async def begun(tasks: list[asyncio.Task[object]]) -> None:
    """Lets each task run until it waits for its message."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert tasks


async def test_one_stranger_too_many_ends_the_wait_of_the_one_that_waited_longest() -> None:
    receiving, senders = Receiving(strangers=2), [Sender() for _ in range(3)]
    waiting = [begin(receiving, sender) for sender in senders]
    await begun(waiting)
    with pytest.raises(HandrailError, match="its message did not come in time"):
        await waiting[0]
    for sender, task in zip(senders[1:], waiting[1:], strict=True):
        sender.send("hello")
        assert await task == "hello"


async def test_a_verified_caller_is_not_displaced_by_strangers() -> None:
    receiving, known = Receiving(strangers=1), Sender()
    waiting = [begin(receiving, known, caller="vera"), *(begin(receiving, Sender()) for _ in range(3))]
    await begun(waiting)
    known.send("hello")
    assert await waiting[0] == "hello"
    for each in waiting[1:]:
        each.cancel()


async def test_a_stranger_whose_message_is_there_makes_room_again() -> None:
    receiving, first, second = Receiving(strangers=1), Sender(), Sender()
    first.send("one")
    assert await begin(receiving, first) == "one"
    task = begin(receiving, second)
    await begun([task])
    second.send("two")
    assert await task == "two"
