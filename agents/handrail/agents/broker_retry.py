"""Retries while the broker can't serve: a full stream, a lost connection or a missing permission is not the flow's
fault."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from handrail.agents.clock import Clock
from handrail.agents.errors import Stopping
from handrail.mesh.errors import BrokerPermission, BrokerUnavailable, HandrailError, StreamFull

T = TypeVar("T")

_logger = logging.getLogger(__name__)

_FIRST_WAIT = timedelta(milliseconds=250)
_LAST_WAIT = timedelta(seconds=10)

PASSES = (StreamFull, BrokerUnavailable, BrokerPermission)
"""Errors that pass without any change to the flow: space is freed, the broker returns, permissions are reloaded."""


class BrokerRetry:
    """Retries with growing waits until a call succeeds; after `stop` it raises `Stopping`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ends all waits."""
        self._stopping.set()

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Returns the result of `call`, which must be idempotent: an answer may get lost on the way."""
        wait = _FIRST_WAIT
        while True:
            try:
                return await call()
            except PASSES as error:
                await self._wait(error, wait)
                wait = min(wait * 2, _LAST_WAIT)

    async def pause(self, duration: timedelta) -> None:
        """Waits, unless the worker stops: then it raises `Stopping`."""
        if self._stopping.is_set():
            raise Stopping
        waiting = asyncio.ensure_future(self._clock.sleep(duration))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            stopping.cancel()
        if self._stopping.is_set():
            raise Stopping

    async def _wait(self, error: HandrailError, duration: timedelta) -> None:
        level = logging.ERROR if isinstance(error, BrokerPermission) else logging.WARNING
        seconds = duration.total_seconds()
        _logger.log(level, "%s; retrying in %g s", error.text, seconds, extra={"reason": error.reason_name})
        await self.pause(duration)
