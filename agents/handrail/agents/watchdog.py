"""Reports which handler blocks the event loop: while it does not await, nothing else in its worker runs."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import threading
import time
from collections.abc import Iterable
from types import CodeType, FrameType

from handrail.agents.handler import Handler

_logger = logging.getLogger(__name__)

_BEAT = 0.25
_TOO_LONG = 1.0
"""Seconds: how often the loop shows that it runs, and how long it may not."""


class Watchdog:
    """A thread that watches the loop it was started on. Call `start` and `stop` on that loop."""

    def __init__(self, handlers: Iterable[Handler]) -> None:
        self._names = {code: handler.name for handler in handlers if (code := _code(handler)) is not None}
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._seen = time.monotonic()
        self._stopping = threading.Event()
        self._beating: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Starts to watch."""
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """Stops watching."""
        self._stopping.set()
        if self._beating is not None:
            self._beating.cancel()

    def _beat(self) -> None:
        self._seen = time.monotonic()
        self._beating = self._loop.call_later(_BEAT, self._beat)

    def _watch(self) -> None:
        told_of = 0.0
        while not self._stopping.wait(_BEAT):
            seen = self._seen
            stood_still = time.monotonic() - seen
            if stood_still > _TOO_LONG and seen != told_of:
                told_of = seen
                _logger.warning(
                    "the event loop was blocked for %.1f s in %s: move what waits or computes for long into a "
                    "plain (not async) handler, or into asyncio.to_thread",
                    stood_still,
                    self._where(),
                )

    def _where(self) -> str:
        innermost = frame = sys._current_frames().get(self._loop_thread)
        while frame is not None:
            name = self._names.get(frame.f_code)
            if name is not None:
                return f"handler {name} ({_place(innermost)})"
            frame = frame.f_back
        return _place(innermost)


def _code(handler: Handler) -> CodeType | None:
    return getattr(inspect.unwrap(handler.function), "__code__", None)


def _place(frame: FrameType | None) -> str:
    return "no frame" if frame is None else f"{frame.f_code.co_filename}, line {frame.f_lineno}"
