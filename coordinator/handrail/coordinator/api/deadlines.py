"""How long the call being served may still take, for whatever it waits for on the way."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from datetime import timedelta

_MARGIN = 0.9
"""What is waited for gets a little less than the call: so that the call can still say what did not answer."""

_ends_at: ContextVar[float] = ContextVar("call_ends_at")


def set_deadline(seconds: float) -> None:
    """The call being served, which runs in a task of its own, ends in so many seconds."""
    _ends_at.set(asyncio.get_running_loop().time() + seconds)


def time_left(at_most: timedelta) -> timedelta:
    """What a wait may take: `at_most`, or less where the call ends before."""
    ends_at = _ends_at.get(None)
    if ends_at is None:
        return at_most
    left = timedelta(seconds=max(0.0, ends_at - asyncio.get_running_loop().time()) * _MARGIN)
    return min(at_most, left)
