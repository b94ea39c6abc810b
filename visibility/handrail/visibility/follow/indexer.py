"""Turns messages into rows: folds each flow on, and writes what changed.

A flow is folded from what was folded before, or from its first message on; otherwise it is read. What is read may be
newer than the messages at hand: those that it contains are passed over when they come.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple, Protocol

from handrail.mesh.bus import ApiError, RawMessage
from handrail.mesh.errors import BrokerPermission, BrokerUnavailable, HandrailError
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.history import has_beginning
from handrail.visibility.follow.fold_child import Done
from handrail.visibility.follow.fold_processes import FoldProcesses, ProcessFailed
from handrail.visibility.follow.folding import Folding
from handrail.visibility.follow.grouping import Group, begins, by_flow
from handrail.visibility.follow.open_flows import FlowKey, OpenFlows
from handrail.visibility.index.changes import Changes
from handrail.visibility.index.rows import FlowRows, rows_of, unfolded_rows
from handrail.visibility.index.writer import MOST_UNFOLDED, Writer

log = logging.getLogger(__name__)

_AT_ONCE = 16
"""Flows that are read at the same time."""

_TURN = 32
"""Flows that are folded between two turns of the event loop, which also listens to the broker."""


class Indexer:
    """Writes the rows of the flows in batches of messages. Messages come in stream order, without gaps."""

    def __init__(self, store: FlowStore, writer: Writer) -> None:
        self._store = store
        self._writer = writer
        self._folding = Folding(store.known_template, OpenFlows())
        self._reading = asyncio.Semaphore(_AT_ONCE)
        self._templates = 0
        self._folded: _Folded | None = None
        self._processes: FoldProcesses | None = None
        self._was_full = False

    async def take(self, messages: Sequence[RawMessage]) -> None:
        """Folds the flows of these messages, and writes meanwhile what the call before this one folded; see `flush`.

        Raises INDEX_UNAVAILABLE and what reading the broker raises; then pass the messages since the last ones that
        were written again, to a new indexer.
        """
        if not messages:
            return
        if not self._templates:  # it has just begun
            await self._store.catalog.refresh()
            await asyncio.to_thread(self._writer.unfolded)
        elif self._writer.has_unfolded:
            await self._store.catalog.refresh()  # their templates may have come
        grouped = by_flow(messages)
        changes = await self._fold(await self._groups(grouped))
        changes.merge(await self._again(grouped))
        self._folded = _Folded(changes, frozenset(grouped), messages[-1])

    async def flush(self) -> None:
        """Writes what was folded, and that the index covers it. Raises INDEX_UNAVAILABLE."""
        if self._folded is None:
            return
        changes, _, last = self._folded
        await asyncio.to_thread(self._writer.store, changes, sequence=last.sequence, time=last.time)
        self._folded = None
        if self._writer.may_lack and not self._was_full:
            log.warning("more than %d flows can't be folded: the index does not list further ones", MOST_UNFOLDED)
        self._was_full = self._writer.may_lack

    def use(self, processes: FoldProcesses | None) -> None:
        """Has these processes fold what is not at hand here, or none. Those used before are closed."""
        if self._processes is not None:
            self._processes.close()
        self._processes = processes

    @property
    def has_processes(self) -> bool:
        """Whether processes fold."""
        return self._processes is not None

    async def _groups(self, grouped: Mapping[FlowKey, list[RawMessage]]) -> list[Group]:
        """The flows, and which of them are new to the index."""
        begun = {key for key, some in grouped.items() if self._folding.flows.get(key) is None and begins(some[0])}
        known = await asyncio.to_thread(self._writer.known, {flow_id for _, flow_id in begun})
        fresh = begun - known - (self._folded.keys if self._folded is not None else frozenset())
        if self._writer.may_lack:
            fresh = set()
        return [Group(key, some, key in fresh) for key, some in grouped.items()]

    async def _fold(self, groups: Sequence[Group]) -> Changes:
        """Folds what is kept here, has processes fold the rest, and reads what neither can fold."""
        own = [each for each in groups if self._is_own(each)]
        others = [each for each in groups if not self._is_own(each)]
        elsewhere = asyncio.create_task(self._fold_elsewhere(others))
        try:
            await self.flush()
            left = await self._fold_here(own)
            done = await elsewhere
        finally:
            elsewhere.cancel()
        if done is None:
            left += await self._fold_here(others)
        changes = self._folding.taken()
        if done is not None:
            changes.merge(done.changes)
            left += done.left
        newest = {each.key: each.messages[-1].sequence for each in groups}
        changes.merge(await self._read_and_fold({key: newest[key] for key in left}))
        return changes

    def _is_own(self, group: Group) -> bool:
        return self._processes is None or self._folding.flows.get(group.key) is not None

    async def _fold_elsewhere(self, groups: Sequence[Group]) -> Done | None:
        """Has processes fold; None if they failed. They are closed then: what they kept is read once it is needed."""
        if self._processes is None:
            return None
        try:
            return await self._processes.fold(groups)
        except ProcessFailed as error:
            log.warning("%s; its work is done again without it", error)
            self.use(None)
            return None

    async def _fold_here(self, groups: Sequence[Group]) -> list[FlowKey]:
        """Folds in this process; returns the flows that have to be read."""
        left = []
        for number, (key, messages, is_new) in enumerate(groups):
            if number % _TURN == 0:
                await asyncio.sleep(0)
            if not self._folding.take(key, messages, is_new=is_new):
                left.append(key)
        return left

    async def _again(self, grouped: Mapping[FlowKey, object]) -> Changes:
        """Folds what could not be folded before, if there are more templates now; in a new process, once."""
        templates = len(self._store.catalog.all())
        if templates == self._templates:
            return Changes()
        self._templates = templates
        await self.flush()
        left = await asyncio.to_thread(self._writer.unfolded)
        return await self._read_and_fold({key: sequence for key, sequence in left.items() if key not in grouped})

    async def _read_and_fold(self, flows: Mapping[FlowKey, int]) -> Changes:
        """Reads flows, each at least up to a sequence, and folds them."""
        changes = Changes()
        for rows in await asyncio.gather(*(self._read(key, at_least) for key, at_least in flows.items())):
            if rows is not None:
                changes.add(rows)
        return changes

    async def _read(self, key: FlowKey, at_least: int) -> FlowRows | None:
        """The rows of a flow that is read, and kept; None if FLOW has no message of it."""
        async with self._reading:
            history = await self._store.read(*key, at_least=at_least)
        rows: FlowRows | None
        try:
            flow = await self._store.fold(*key, history)
            rows = rows_of(flow, history)
        except (ApiError, BrokerUnavailable, BrokerPermission):
            raise
        except Exception as error:
            self._folding.flows.drop(key)
            rows = _unfolded(key, max(history.everything(), key=_sequence, default=None), error)
        else:
            self._folding.flows.keep(key, flow, rows)
        if rows is None or rows.flow is not None:
            return rows
        return replace(rows, has_beginning=bool(history) and has_beginning(history))


class _Stored(Protocol):
    """A message: its position, and when it was stored."""

    @property
    def sequence(self) -> int: ...

    @property
    def time(self) -> datetime: ...


class _Folded(NamedTuple):
    """What was folded and is not written yet: what changed, of which flows, and the last message that it covers."""

    changes: Changes
    keys: frozenset[FlowKey]
    last: RawMessage


def _sequence(message: _Stored) -> int:
    return message.sequence


def _unfolded(key: FlowKey, last: _Stored | None, error: Exception) -> FlowRows | None:
    """The row that says why a flow can't be folded; None if FLOW has no message of it."""
    if last is None:
        return None
    if isinstance(error, HandrailError):
        why = error.text
    else:
        why = f"unexpected: {type(error).__name__}"
        log.error("flow %s can't be folded", key[1], exc_info=error)
    return unfolded_rows(*key, sequence=last.sequence, time=last.time, why=why)
