"""Enumerates the orders in which actors can make their broker calls, one after the other.

It does not depend on brokers or coordinators: `stepped` supplies the calls.

This is stateless model checking: a scenario runs repeatedly, each time with a different choice of the next actor at
some call. It tries all schedules up to a given number of preemptions: an actor that could continue has to wait, or a
process dies. Most races need at most two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar

_actor: ContextVar[str] = ContextVar("actor", default="")

_SETTLING = 24
"""After this many passes of the event loop, an actor is at its next call, finished, or waiting for another."""

KILL = "kill "


class Schedule:
    """The next actor at each call: first as in `chosen`, then the actor that is already running."""

    def __init__(self, chosen: tuple[str, ...] = ()) -> None:
        self._given = chosen
        self.trace: list[tuple[tuple[str, ...], str]] = []

    def choose(self, ready: tuple[str, ...]) -> str:
        """Chooses the next of the ready actors."""
        last = self.trace[-1][1] if self.trace else ""
        actors = [each for each in ready if not each.startswith(KILL)]
        number = len(self.trace)
        chosen = self._given[number] if number < len(self._given) else last if last in actors else actors[0]
        self.trace.append((ready, chosen))
        return chosen

    def branches(self, preemptions: int) -> list[tuple[str, ...]]:
        """The schedules that branch off after the chosen part of this one, with at most this many preemptions."""
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
    """The actors of one run. Each broker call of an actor waits until it is chosen."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._process_of: dict[str, str] = {}
        self.dead: set[str] = set()

    def add(self, name: str, work: Callable[[], Coroutine[None, None, None]], *, process: str = "") -> None:
        """Adds an actor. The actors of one process die together, if it may die."""

        async def act() -> None:
            _actor.set(name)
            await self.step()
            await work()

        self._tasks[name] = asyncio.create_task(act(), name=name)
        self._process_of[name] = process

    async def step(self) -> None:
        """Waits for the actor's turn. Code outside the actors does not wait."""
        name = _actor.get()
        if name:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            # An actor may make several calls at once.
            self._waiting.setdefault(name, []).append(turn)
            await turn

    async def play(self, *, deaths: int) -> None:
        """Runs the actors until all have finished; up to this many processes may die. Raises what an actor raised."""
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
    """Runs the scenario under every schedule and returns their number. The first failure is raised with it."""
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
