"""Watches the running handlers: tells each one when its attempt is over, and frees the worker's resources it holds.

The flow decides when an attempt is over, not a clock: after an absence of the coordinator the flow grants more time. So
the overseer reads the flow of each handler that is past its deadline, and no other.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from handrail.agents.attempt import Attempt
from handrail.agents.clock import Clock
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow, RunState
from handrail.mesh.streams.flow_store import FlowStore
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.template_pb2 import EFFECT_NONE

_logger = logging.getLogger(__name__)

_PACE = timedelta(seconds=1)
_SOON, _LATER = timedelta(seconds=1), timedelta(seconds=30)
_TO_CLEAN_UP = timedelta(seconds=5)
"""How long a handler may continue after it was told that its attempt is over, before its resources are freed."""


class HandlerEnded(Exception):
    """A handler was cancelled: its attempt was over, or (`halted`) its flow was halted and its step has no effect."""

    def __init__(self, why: str, *, halted: bool) -> None:
        self.why = why
        self.halted = halted
        super().__init__(why)


class Running:
    """One running handler. `deadline` is when its attempt ends, as far as this worker knows; `release` frees what the
    handler holds of the worker: its delivery, its thread, its place among the others.
    """

    # Class-level defaults, overridden only in unusual cases: an instance is created for every call of a handler.
    look_at: datetime | None = None
    told_at: datetime | None = None
    ended: HandlerEnded | None = None
    released = False
    _told = False
    _cancelled: threading.Event | None = None

    def __init__(
        self,
        attempt: Attempt,
        since: datetime,
        release: Callable[[], None],
        *,
        at_least: int,
        name: str,
        asynchronous: bool,
    ) -> None:
        self.attempt = attempt
        self.name = name
        self.asynchronous = asynchronous
        self.since = since
        self.deadline = attempt.deadline
        self.at_least = at_least
        self.release = release
        self.task: asyncio.Task[object] | None = None

    @property
    def cancelled(self) -> threading.Event:
        """Set once the handler can stop. Created on first use: few handlers ask."""
        if self._cancelled is None:
            self._cancelled = threading.Event()
        if self._told:
            self._cancelled.set()
        return self._cancelled

    def tell(self) -> None:
        """Sets `cancelled`."""
        self._told = True
        if self._cancelled is not None:
            self._cancelled.set()

    def raise_if_ended(self) -> None:
        """Raises HandlerEnded if the overseer cancelled the handler; a cancellation by others does not count."""
        task = self.task if self.asynchronous else None
        if self.ended is not None and task is not None and task.cancelling() == 1:
            raise self.ended from None

    @property
    def due(self) -> datetime:
        """When to look at its flow next."""
        return self.look_at or self.deadline

    def describe(self, now: datetime) -> str:
        """Describes for people which handler runs in which flow, and for how long."""
        kind = "async" if self.asynchronous else "plain"
        seconds = (now - self.since).total_seconds()
        return f"{kind} handler {self.name} ({self.attempt.label}), at work for {seconds:.0f} s"


class Overseer:
    """Watches the handlers of one worker."""

    def __init__(self, store: FlowStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._running: set[Running] = set()
        self._heard: set[str] = set()
        self.tell: Callable[[], None] | None = None
        """Called when a handler gets stuck, and when a stuck one ends."""

    def begin(self, running: Running) -> None:
        """Registers a handler that is about to run, or to go on, in the current task."""
        running.task = asyncio.current_task()
        self._running.add(running)

    def end(self, running: Running) -> None:
        """Removes a handler that returned, raised or was cancelled."""
        self._running.discard(running)
        if running.ended is not None:
            if running.released:
                self._changed()
            if running.asynchronous and running.task is not None:
                running.task.uncancel()

    @property
    def stuck(self) -> list[str]:
        """Describes the handlers that continue although their attempts are over."""
        now = self._clock.now()
        return [running.describe(now) for running in self._running if running.released]

    def heard(self, flow_id: str) -> None:
        """Notes that a flow may be halted or moved: its handlers are checked next time."""
        self._heard.add(flow_id)

    async def watch(self) -> None:
        """Checks the handlers once a second, until cancelled."""
        while True:
            await asyncio.sleep(_PACE.total_seconds())
            await self.look_around()

    async def look_around(self) -> None:
        """Checks each handler that is past its deadline, or that has a flow with news."""
        now, heard = self._clock.now(), self._heard
        self._heard = set()
        for running in list(self._running):
            if running.told_at is None:
                if running.due <= now or running.attempt.flow_id in heard:
                    await self._look(running, now)
            elif now - running.told_at >= _TO_CLEAN_UP and not running.released:
                self._give_up(running, now)

    async def _look(self, running: Running, now: datetime) -> None:
        attempt = running.attempt
        try:
            flow = await self._store.load(attempt.template.name, attempt.flow_id, at_least=running.at_least)
        except HandrailError as error:
            if error.reason == ErrorReason.ERROR_REASON_FLOW_ARCHIVED:
                self._end(running, now, HandlerEnded("its flow ended, and is archived", halted=False))
                return
            _logger.warning("%s: can't tell whether to continue: %s", attempt.label, error.text)
            running.look_at = now + _LATER
            return
        deadline = _deadline(flow, attempt)
        if deadline is None:
            self._end(running, now, HandlerEnded("its attempt was over before the handler was done", halted=False))
            return
        halted = not (flow.goes_on or attempt.undo_of or attempt.in_halted_flow)
        if halted and attempt.step.effect == EFFECT_NONE:
            self._end(running, now, HandlerEnded("the flow is halted", halted=True))
            return
        if halted:
            # Its outcome must be known before it can be undone: it continues until its time is up.
            running.tell()
        running.deadline = deadline
        # It is past its deadline, but the flow does not say so yet: the coordinator is about to, or is away.
        again = min(max((now - running.since) / 4, _SOON), _LATER)
        running.look_at = deadline if deadline > now else now + again

    def _end(self, running: Running, now: datetime, why: HandlerEnded) -> None:
        if running not in self._running:
            return  # it ended while its flow was read
        running.told_at, running.ended = now, why
        running.tell()
        if running.asynchronous and running.task is not None:
            running.task.cancel()

    def _give_up(self, running: Running, now: datetime) -> None:
        """Frees all but the thread or task of a handler that does not end. Its late answer is still published."""
        running.released = True
        running.release()
        _logger.error(
            "%s: %s, but it does not end; let it check ctx.cancelled, or give its waits a time limit",
            running.describe(now),
            running.ended,
            extra={"flow_id": running.attempt.flow_id, "step": running.attempt.step.name},
        )
        self._changed()

    def _changed(self) -> None:
        if self.tell is not None:
            self.tell()


def _deadline(flow: Flow, attempt: Attempt) -> datetime | None:
    """Returns when the attempt ends according to the flow, or None if it is over."""
    if attempt.undo_of:
        effect = flow.effects.get(attempt.undo_of)
        return effect.deadline if effect is not None and effect.attempt == attempt.attempt else None
    run = flow.runs.get((attempt.step.name, attempt.root))
    if run is None or run.state is not RunState.OWED or (run.run, run.attempt) != (attempt.run, attempt.attempt):
        return None
    return run.deadline
