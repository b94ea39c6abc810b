"""Turns messages into rows: folds each flow on, and writes what changed.

A flow is folded from what was folded before, or from its first message on; otherwise it is read. What is read may be
newer than the messages at hand: those that it contains are passed over when they come.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from handrail.mesh.bus import ApiError, RawMessage
from handrail.mesh.errors import BrokerPermission, BrokerUnavailable, HandrailError
from handrail.mesh.flow import Flow
from handrail.mesh.fold import advance
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.history import History, decoded, with_malformed
from handrail.mesh.wire import ids
from handrail.mesh.wire.subjects import IDENTIFIER, NAME, Kind, parse
from handrail.visibility.follow.open_flows import FlowKey, OpenFlows
from handrail.visibility.index.rows import FlowRows, rows_of, unfolded_rows
from handrail.visibility.index.writer import Writer

log = logging.getLogger(__name__)

_AT_ONCE = 16
"""Flows that are read at the same time."""


class Indexer:
    """Writes the rows of the flows in a batch of messages. Messages come in stream order, without gaps."""

    def __init__(self, store: FlowStore, writer: Writer, flows: OpenFlows) -> None:
        self._store = store
        self._writer = writer
        self._flows = flows
        self._reading = asyncio.Semaphore(_AT_ONCE)
        self._templates = 0

    async def take(self, messages: Sequence[RawMessage]) -> None:
        """Writes what these messages changed, and that the index covers them.

        Raises INDEX_UNAVAILABLE and what reading the broker raises; then nothing is written: pass the messages again,
        to a new indexer.
        """
        if not messages:
            return
        grouped = _by_flow(messages)
        begun = [key for key, some in grouped.items() if self._flows.get(key) is None and _begins(some[0])]
        known = await asyncio.to_thread(self._writer.known, {flow_id for _, flow_id in begun})
        fresh = frozenset(begun) - known
        done = await asyncio.gather(*(self._done(key, some, is_new=key in fresh) for key, some in grouped.items()))
        await self._write([*done, *await self._again(grouped)], messages[-1])

    async def _write(self, done: Iterable[_Done], last: RawMessage) -> None:
        """Stores the rows; flows are kept only if that succeeded."""
        changed = [each for each in done if each.rows is not None]
        rows = [each.rows for each in changed if each.rows is not None]
        await asyncio.to_thread(self._writer.write, rows, sequence=last.sequence, time=last.time)
        for each in changed:
            if each.flow is not None:
                self._flows.keep(each.key, each.flow)
            else:
                self._flows.drop(each.key)

    async def _again(self, grouped: Mapping[FlowKey, object]) -> list[_Done]:
        """Folds what could not be folded before, if there are more templates now; in a new process, once."""
        if not self._templates:
            await self._store.catalog.refresh()
        templates = len(self._store.catalog.all())
        if templates == self._templates:
            return []
        self._templates = templates
        left = await asyncio.to_thread(self._writer.unfolded)
        keys = {(name, flow_id): sequence for name, flow_id, sequence in left if (name, flow_id) not in grouped}
        return list(await asyncio.gather(*(self._read_and_fold(key, at_least) for key, at_least in keys.items())))

    async def _done(self, key: FlowKey, messages: Sequence[RawMessage], *, is_new: bool) -> _Done:
        known = self._flows.get(key)
        last = messages[-1]
        if known is None and not is_new:
            return await self._read_and_fold(key, last.sequence)
        if known is not None and last.sequence <= known.last_sequence:
            return _Done(key)
        history = decoded([each for each in messages if known is None or each.sequence > known.last_sequence])
        return await self._folded(key, known, history, last)

    async def _read_and_fold(self, key: FlowKey, at_least: int) -> _Done:
        async with self._reading:
            history = await self._store.read(*key, at_least=at_least)
        return await self._folded(key, None, history, max(history.everything(), key=_sequence, default=None))

    async def _folded(self, key: FlowKey, known: Flow | None, history: History, last: _Stored | None) -> _Done:
        try:
            if known is None:
                flow = await self._store.fold(*key, history)
            else:
                flow = advance(known.copy(), history, await self._store.versions_in(key[0], history))
                flow = with_malformed(flow, history)
            return _Done(key, flow, rows_of(flow, history))
        except (ApiError, BrokerUnavailable, BrokerPermission):
            raise
        except Exception as error:
            return _Done(key, None, _unfolded(key, last, error))


class _Stored(Protocol):
    """A message: its position, and when it was stored."""

    @property
    def sequence(self) -> int: ...

    @property
    def time(self) -> datetime: ...


class _Done(NamedTuple):
    """A flow with its rows; without rows if nothing changed, without a flow if it can't be folded."""

    key: FlowKey
    flow: Flow | None = None
    rows: FlowRows | None = None


def _sequence(message: _Stored) -> int:
    return message.sequence


def _by_flow(messages: Iterable[RawMessage]) -> Mapping[FlowKey, list[RawMessage]]:
    """Groups messages by type and id. Where one of them is malformed, there can be no flow."""
    grouped: defaultdict[FlowKey, list[RawMessage]] = defaultdict(list)
    for message in messages:
        tokens = message.subject.split(".", 3)
        if len(tokens) > 3 and NAME.fullmatch(tokens[1]) and IDENTIFIER.fullmatch(tokens[2]):
            grouped[tokens[1], tokens[2]].append(message)
    return grouped


def _begins(message: RawMessage) -> bool:
    """Tells whether a flow may begin with this message."""
    try:
        address = parse(message.subject)
    except HandrailError:
        return False
    return address.kind is Kind.EVENT and address.event_id == ids.start_id(address.flow_id)


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
