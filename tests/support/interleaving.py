"""Every order in which some actors can do what they do, one call of the broker after the other.

It knows neither brokers nor coordinators: `stepped` gives it calls to order.

Stateless model checking: a scenario is run again and again, each time with another choice of who goes on at some call.
All schedules with up to a given number of preemptions are tried (an actor that could go on has to wait, or a process
dies); most races need no more than two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar

_actor: ContextVar[str] = ContextVar("actor", default="")

_SETTLING = 12
"""Passes of the event loop after which an actor that was let go is at its next call, done, or waits for another."""

KILL = "kill "


class Schedule:
    """Who goes on at each call: `chosen` as given, then whoever goes on already."""

    def __init__(self, chosen: tuple[str, ...] = ()) -> None:
        self._given = chosen
        self.trace: list[tuple[tuple[str, ...], str]] = []

    def choose(self, ready: tuple[str, ...]) -> str:
        """The next of those who are ready."""
        last = self.trace[-1][1] if self.trace else ""
        actors = [each for each in ready if not each.startswith(KILL)]
        number = len(self.trace)
        chosen = self._given[number] if number < len(self._given) else last if last in actors else actors[0]
        self.trace.append((ready, chosen))
        return chosen

    def branches(self, preemptions: int) -> list[tuple[str, ...]]:
        """The schedules that leave this one at a choice of its own, with at most so many preemptions."""
        chosen = tuple(name for _, name in self.trace)
        found = []
        for number in range(len(self._given), len(self.trace)):
            for other in self.trace[number][0]:
                branch = (*chosen[:number], other)
                if other != chosen[number] and self._preemptions(branch) <= preemptions:
                    found.append(branch)
        return found

    def _preemptions(self, branch: tuple[str, ...]) -> int:
        count = 0
        for number, name in enumerate(branch):
            before = branch[number - 1] if number else ""
            count += name.startswith(KILL) or (name != before and before in self.trace[number][0])
        return count


class Stage:
    """The actors of one run. Each call of the broker by an actor waits until it is chosen."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._process_of: dict[str, str] = {}
        self.dead: set[str] = set()

    def add(self, name: str, work: Callable[[], Coroutine[None, None, None]], *, process: str = "") -> None:
        """An actor; those of one process die together, where it may die."""

        async def act() -> None:
            _actor.set(name)
            await self.step()
            await work()

        self._tasks[name] = asyncio.create_task(act(), name=name)
        self._process_of[name] = process

    async def step(self) -> None:
        """Wait for the actor's turn; who is no actor does not wait."""
        name = _actor.get()
        if name:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            # An actor may make several calls at once.
            self._waiting.setdefault(name, []).append(turn)
            await turn

    async def play(self, *, deaths: int) -> None:
        """Let the actors go on until all are done; up to so many processes may die. Raises what an actor raised."""
        while True:
            for _ in range(_SETTLING):
                await asyncio.sleep(0)
            ready = [name for name in self._tasks if self._waiting.get(name)]
            if not ready:
                break
            if len(self.dead) < deaths:
                ready += [KILL + each for each in sorted({self._process_of[name] for name in ready} - {""})]
            chosen = self._schedule.choose(tuple(ready))
            if chosen.startswith(KILL):
                await self._kill(chosen.removeprefix(KILL))
            else:
                self._waiting[chosen].pop(0).set_result(None)
        blocked = [name for name, task in self._tasks.items() if not task.done()]
        assert not blocked, f"{blocked} wait for nobody"
        for task in self._tasks.values():
            if not task.cancelled():
                task.result()

    async def _kill(self, process: str) -> None:
        self.dead.add(process)
        doomed = [name for name, each in self._process_of.items() if each == process]
        for name in doomed:
            self._waiting.pop(name, None)
            self._tasks[name].cancel()
        await asyncio.gather(*(self._tasks[name] for name in doomed), return_exceptions=True)


async def explore(scenario: Callable[[Schedule], Awaitable[None]], *, preemptions: int) -> int:
    """Run the scenario under every schedule; how many those were. The first that fails is raised with its schedule."""
    left: list[tuple[str, ...]] = [()]
    number = 0
    while left:
        schedule = Schedule(left.pop())
        number += 1
        try:
            await scenario(schedule)
        except Exception as error:
            error.add_note("schedule: " + ", ".join(name for _, name in schedule.trace))
            raise
        left += schedule.branches(preemptions)
    return number
