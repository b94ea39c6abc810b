"""Flows that a worker read lately. Each input of a join comes as a delivery of its own: reading the whole flow for each
would cost the square of their number."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from handrail.mesh.flow import Flow
from handrail.mesh.streams.flow_store import FlowStore

_LIMIT = 32 << 20
_PER_MESSAGE = 2048
"""Bytes: how much memory the remembered flows may take, by estimate, and what a message takes beside its own bytes."""


@dataclass(slots=True, eq=False)
class _Recent:
    """A flow, unless it is yet to be read. One delivery at a time reads it; the others wait, and look at the result."""

    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    flow: Flow | None = None
    size: int = 0


class RecentFlows:
    """Reads flows, and remembers some of them, to read only their new messages. They take `limit` bytes at most."""

    def __init__(self, store: FlowStore, *, limit: int = _LIMIT) -> None:
        self._store = store
        self._limit = limit
        self._recent: OrderedDict[tuple[str, str], _Recent] = OrderedDict()
        self._size = 0

    async def load(self, flow_type: str, flow_id: str, *, at_least: int, suffices: Callable[[Flow], bool]) -> Flow:
        """Returns a flow with everything up to sequence `at_least`.

        It is as new as the replica that answers has it, unless a remembered one has as much and `suffices`. Raises like
        `FlowStore.load`.
        """
        key = flow_type, flow_id
        while True:
            recent = self._recent.setdefault(key, _Recent())
            async with recent.reading:
                if self._recent.get(key) is not recent:
                    continue  # forgotten meanwhile
                flow = recent.flow
                if flow is not None and flow.last_sequence >= at_least and suffices(flow):
                    return flow
                return await self._read(key, recent, at_least)

    def forget(self) -> None:
        """Forgets all flows: a stream that was restored, or lost messages, may reuse their sequences."""
        self._recent.clear()
        self._size = 0

    async def _read(self, key: tuple[str, str], recent: _Recent, at_least: int) -> Flow:
        known = recent.flow
        try:
            if known is None:
                flow = await self._store.load(*key, at_least=at_least)
            else:
                flow = await self._store.catch_up(known, at_least=at_least)
        except BaseException:
            self._drop(key, recent)
            raise
        if self._recent.get(key) is recent:
            self._remember(key, recent, flow)
        return flow

    def _remember(self, key: tuple[str, str], recent: _Recent, flow: Flow) -> None:
        added = _size_of_news(flow, recent.flow)
        recent.flow = flow
        recent.size += added
        self._size += added
        self._recent.move_to_end(key)
        while self._size > self._limit and len(self._recent) > 1:
            self._drop(*next(iter(self._recent.items())))

    def _drop(self, key: tuple[str, str], recent: _Recent) -> None:
        if self._recent.get(key) is recent:
            del self._recent[key]
            self._size -= recent.size


def _size_of_news(flow: Flow, before: Flow | None) -> int:
    """Estimates the memory that a flow takes in addition to what it took before."""
    known, messages = (0, 0) if before is None else (before.last_sequence, before.message_count)
    size = (flow.message_count - messages) * _PER_MESSAGE
    for fact in reversed(flow.facts.values()):
        if fact.sequence <= known:
            break
        size += fact.event.ByteSize()
    return size
