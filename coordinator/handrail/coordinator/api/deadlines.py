"""The time left for the current call, for everything that it waits for."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from datetime import timedelta

_MARGIN = 0.9
"""A wait ends this much before the call does, so that the call can still say what did not answer."""

_ends_at: ContextVar[float] = ContextVar("call_ends_at")


def set_deadline(seconds: float) -> None:
    """Sets when the current call ends, in seconds from now. Each call runs in its own task."""
    _ends_at.set(asyncio.get_running_loop().time() + seconds)


def time_left(at_most: timedelta) -> timedelta:
    """Returns how long a wait may take: `at_most`, or less if the call ends sooner."""
    ends_at = _ends_at.get(None)
    if ends_at is None:
        return at_most
    left = timedelta(seconds=max(0.0, ends_at - asyncio.get_running_loop().time()) * _MARGIN)
    return min(at_most, left)
