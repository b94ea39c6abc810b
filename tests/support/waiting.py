"""Waits for conditions, never for time."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

from handrail.mesh.errors import HandrailError

T = TypeVar("T")

PATIENCE = float(os.environ.get("TEST_PATIENCE", "30"))
"""Seconds to wait for a condition unless a test says otherwise."""


async def until(condition: Callable[[], T], *, within: float = PATIENCE) -> T:
    """Waits until the condition returns something true, and returns it; AssertionError after `within` seconds."""
    deadline = asyncio.get_running_loop().time() + within
    while not (value := condition()):
        assert asyncio.get_running_loop().time() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)
    return value


async def eventually(
    read: Callable[[], Awaitable[T]], condition: Callable[[T], object] = bool, *, within: float = PATIENCE
) -> T:
    """Reads until the condition holds for the value, and returns it. Raises AssertionError with the last value."""
    deadline = asyncio.get_running_loop().time() + within
    while not condition(value := await read()):
        assert asyncio.get_running_loop().time() < deadline, f"it did not come to pass: {value!r:.2000}"
        await asyncio.sleep(0.02)
    return value


class Outcomes:
    """The results of `publish_nowait`, by subject."""

    def __init__(self) -> None:
        self.told: dict[str, int | HandrailError] = {}
        self.twice: list[str] = []

    def of(self, subject: str) -> Callable[[int | HandrailError], None]:
        """The callback for one message."""

        def on_stored(outcome: int | HandrailError) -> None:
            if subject in self.told:
                self.twice.append(subject)
            self.told[subject] = outcome

        return on_stored
