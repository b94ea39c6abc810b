"""Threads for plain handlers: who gets one, and who is handed back."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from handrail.agents import Agent
from handrail.agents.errors import Busy
from handrail.agents.threads import Threads
from payments.v1.payments_pb2 import ChargebackReceived

NO_TIME, LONG = timedelta(), timedelta(hours=1)


async def test_what_finds_no_thread_in_time_is_handed_back_and_a_free_one_is_taken() -> None:
    threads = Threads(1)
    first, second = threads.place(), threads.place()
    await first.take(within=NO_TIME)
    with pytest.raises(Busy, match="threads"):
        await second.take(within=NO_TIME)
    first.give_up()
    await second.take(within=NO_TIME)


async def test_a_place_that_is_held_is_not_taken_twice() -> None:
    threads = Threads(1)
    place = threads.place()
    await place.take(within=NO_TIME)
    assert await threads.run(lambda: 7, place) == 7
    await threads.place().take(within=NO_TIME)


async def test_who_waits_for_a_thread_gets_it_when_one_is_free() -> None:
    threads, order = Threads(1), list[str]()

    async def take(name: str) -> None:
        place = threads.place()
        await place.take(within=LONG)
        order.append(name)
        await asyncio.sleep(0)
        place.give_up()

    await asyncio.gather(*(take(name) for name in "abc"))
    assert order == ["a", "b", "c"]


@pytest.mark.parametrize(
    "plain, concurrency, threads, in_hand", [(True, 100, 16, 16), (True, 4, 16, 4), (False, 100, 16, 100)]
)
def test_a_worker_takes_no_more_than_it_can_begin(plain: bool, concurrency: int, threads: int, in_hand: int) -> None:
    agent = Agent("a", concurrency=concurrency, threads=threads)

    def handler(event: ChargebackReceived) -> None:
        return None

    async def asynchronous(event: ChargebackReceived) -> None:
        return None

    if plain:
        agent.on(ChargebackReceived)(handler)
    else:
        agent.on(ChargebackReceived)(asynchronous)
    assert agent.in_hand == in_hand
