"""Watching a flow: every message once, in stream order, soon after it was stored.

A watch reads the stream from where it left off. Wake-ups only hint at when to look: one may be missing, or come for
nothing, and the watch loses nothing by either.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta

from handrail.coordinator.api.flow_lookup import Found
from handrail.coordinator.api.flow_reading import Past
from handrail.coordinator.api.views import event_view
from handrail.coordinator.api.wakeups import Wakeups
from handrail.coordinator.lists.archive import erased
from handrail.coordinator.reconcile.drain import Drain
from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow
from handrail.mesh.fold import begin, evolve, status
from handrail.mesh.streams import purged
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.history import History, has_beginning, take_malformed
from handrail.mesh.wire.envelope import Malformed
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.flow_service_pb2 import WatchFlowResponse

CHECKPOINT = timedelta(seconds=15)
"""The longest time between signs of life on a quiet watch; each says where to resume."""

_SOON = 0.01
_SELDOM = 5.0


class Watcher:
    """Creates watches."""

    def __init__(self, bus: NatsBus, store: FlowStore, drain: Drain, *, checkpoint: timedelta = CHECKPOINT) -> None:
        self._bus = bus
        self._wakeups = Wakeups(bus)
        self._store = store
        self._drain = drain
        self._checkpoint = checkpoint.total_seconds()

    async def watch(self, found: Found, after: int) -> AsyncGenerator[WatchFlowResponse, None]:
        """Yields a flow's messages after sequence `after` as they arrive, with checkpoints. Ends with DRAINING,
        or with FLOW_ARCHIVED once the flow is purged.
        """
        flow_type, flow_id = found.flow_type, found.flow_id
        loop = asyncio.get_running_loop()
        async with self._wakeups.of(flow_type, flow_id) as hint:
            progress = _Progress(after)
            at_least, pause, alive_at = found.sequence, _SOON, 0.0
            while True:
                hint.clear()
                for response in await self._news(flow_type, flow_id, progress, at_least):
                    yield response
                    pause, alive_at = _SOON, 0.0
                at_least = progress.sequence
                if self._drain.begun:
                    raise _draining(flow_id, progress.sequence)
                # The first checkpoint follows the news at once: the client is up to date and knows where to resume.
                if loop.time() >= alive_at:
                    yield progress.checkpoint()
                    alive_at = loop.time() + self._checkpoint
                pause = await self._pause(hint, pause, alive_at - loop.time())

    async def replay(self, past: Past, after: int) -> AsyncGenerator[WatchFlowResponse, None]:
        """Yields the messages of an archived flow after sequence `after`, and a checkpoint. Ends with FLOW_ARCHIVED."""
        if past.archived is None or past.is_erased:
            raise erased(past.flow_type, past.flow_id)
        progress, last = _Progress(after), past.archived.summary
        for response in await self._taken(past.flow_type, past.history, progress):
            void = past.archived.void.get(response.sequence)
            response.event.void_reason = "" if void is None else void.text
            if response.sequence == last.last_sequence:
                response.status = last.status
            yield response
        yield WatchFlowResponse(sequence=progress.sequence, status=last.status)
        raise purged.archived(past.flow_type, past.flow_id)

    async def _news(self, flow_type: str, flow_id: str, progress: _Progress, at_least: int) -> list[WatchFlowResponse]:
        history = await self._store.read(flow_type, flow_id, at_least=at_least)
        if await self._is_purged(flow_type, flow_id, progress, history):
            raise purged.archived(flow_type, flow_id)
        return await self._taken(flow_type, history, progress)

    async def _taken(self, flow_type: str, history: History, progress: _Progress) -> list[WatchFlowResponse]:
        """Takes what is new in the history of a flow."""
        if progress.has_not_begun and history.last_sequence > progress.folded_up_to and history:
            progress.flow = begin(await self._store.pinned_template(flow_type, history))
        versions = await self._store.versions_in(flow_type, history)
        news = []
        for recorded in history.everything():
            if progress.flow is None or recorded.sequence <= progress.flow.last_sequence:
                continue
            if isinstance(recorded, Malformed):
                take_malformed(progress.flow, recorded)
            else:
                progress.flow = evolve(progress.flow, recorded, versions)
            if recorded.sequence > progress.sequence:
                progress.sequence = recorded.sequence
                event = event_view(recorded, progress.flow.void.get(recorded.sequence))
                news.append(WatchFlowResponse(event=event, status=status(progress.flow), sequence=recorded.sequence))
        return news

    async def _is_purged(self, flow_type: str, flow_id: str, progress: _Progress, history: History) -> bool:
        """Tells whether the flow was purged, maybe during the watch: what comes late belongs to nothing."""
        if history and has_beginning(history):
            return False
        if progress.flow is not None and progress.flow.first is not None:
            return True
        return bool(history) and await purged.may_be_purged(self._bus, flow_type, flow_id)

    async def _pause(self, hint: asyncio.Event, pause: float, until_checkpoint: float) -> float:
        """Waits for a hint, the drain or the end of the pause; returns the next pause, which is short after a hint."""
        waits = [asyncio.create_task(hint.wait()), asyncio.create_task(self._drain.wait())]
        try:
            await asyncio.wait(
                waits, timeout=max(0.0, min(pause, until_checkpoint)), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for wait in waits:
                wait.cancel()
        return _SOON if hint.is_set() else min(pause * 2, _SELDOM)


class _Progress:
    """How far a watch got: the flow folded so far, and the sequence to resume from."""

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence
        self.flow: Flow | None = None

    @property
    def has_not_begun(self) -> bool:
        """Whether the flow has no first event yet: what comes may pin it to another version than it seemed to have."""
        return self.flow is None or self.flow.first is None

    @property
    def folded_up_to(self) -> int:
        """The last sequence of the flow folded so far; 0 without one."""
        return 0 if self.flow is None else self.flow.last_sequence

    def checkpoint(self) -> WatchFlowResponse:
        """Returns a response without news that says where to resume."""
        checkpoint = WatchFlowResponse(sequence=self.sequence)
        if self.flow is not None:
            checkpoint.status = status(self.flow)
        return checkpoint


def _draining(flow_id: str, sequence: int) -> HandrailError:
    return HandrailError(
        ErrorReason.ERROR_REASON_DRAINING,
        f"this server is draining; watch flow {flow_id} again, after sequence {sequence}",
        flow_id=flow_id,
        sequence=str(sequence),
    )
