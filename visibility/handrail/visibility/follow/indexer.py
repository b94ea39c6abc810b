"""Turns messages into rows: folds each flow on, and writes what changed.

A flow is folded from what was folded before, or from its first message on; otherwise it is read. What is read may be
newer than the messages at hand: those that it contains are passed over when they come.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from handrail.mesh.bus import RawMessage
from handrail.mesh.errors import HandrailError
from handrail.mesh.fold import advance
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.history import History, decoded
from handrail.mesh.wire import ids
from handrail.mesh.wire.subjects import Kind, parse
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.visibility.follow.open_flows import FlowKey, OpenFlows
from handrail.visibility.index.rows import FlowRows, first_sequence, rows_of, unreadable_row
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

    async def take(self, messages: Sequence[RawMessage]) -> None:
        """Writes what these messages changed, and that the index covers them.

        Raises BROKER_UNAVAILABLE and INDEX_UNAVAILABLE; then nothing is written: pass the messages again.
        """
        if not messages:
            return
        grouped = _by_flow(messages)
        begun = [key for key, some in grouped.items() if self._flows.get(key) is None and _begins(some[0])]
        known = await asyncio.to_thread(self._writer.known, {flow_id for _, flow_id in begun})
        fresh = frozenset(begun) - known
        rows = await asyncio.gather(*(self._rows(key, some, is_new=key in fresh) for key, some in grouped.items()))
        last = messages[-1]
        written = [each for each in rows if each is not None]
        await asyncio.to_thread(self._writer.write, written, sequence=last.sequence, time=last.time)

    async def _rows(self, key: FlowKey, messages: Sequence[RawMessage], *, is_new: bool) -> FlowRows | None:
        known = self._flows.get(key)
        if known is not None and messages[-1].sequence <= known.last_sequence:
            return None
        first = messages[0].sequence if known is None else first_sequence(known)
        try:
            history = decoded(messages)
            if known is not None and not history.malformed:
                history = History(each for each in history if each.sequence > known.last_sequence)
                flow = advance(known, history, await self._store.versions_in(key[0], history))
            else:
                if history.malformed or not is_new:
                    history = await self._read(key, messages[-1].sequence)
                    first = min((each.sequence for each in history.everything()), default=first)
                flow = await self._store.fold(*key, history)
            rows = rows_of(flow, history)
        except Exception as error:
            return _unreadable(key, first, messages[-1], error)
        self._flows.keep(key, flow)
        return rows

    async def _read(self, key: FlowKey, at_least: int) -> History:
        async with self._reading:
            return await self._store.read(*key, at_least=at_least)


def _by_flow(messages: Iterable[RawMessage]) -> Mapping[FlowKey, list[RawMessage]]:
    grouped: defaultdict[FlowKey, list[RawMessage]] = defaultdict(list)
    for message in messages:
        tokens = message.subject.split(".", 3)
        if len(tokens) > 3:
            grouped[tokens[1], tokens[2]].append(message)
    return grouped


def _begins(message: RawMessage) -> bool:
    """Tells whether a flow may begin with this message."""
    try:
        address = parse(message.subject)
    except HandrailError:
        return False
    return address.kind is Kind.EVENT and address.event_id == ids.start_id(address.flow_id)


def _unreadable(key: FlowKey, first: int, message: RawMessage, error: Exception) -> FlowRows | None:
    """The row that says why a flow can't be folded. None if there is no such flow: its messages are in quarantine."""
    if isinstance(error, HandrailError):
        if error.reason == ErrorReason.ERROR_REASON_BROKER_UNAVAILABLE:
            raise error
        if error.reason == ErrorReason.ERROR_REASON_FLOW_NOT_FOUND:
            return None
        why = error.text
        log.warning("flow %s can't be folded: %s", key[1], why)
    else:
        why = f"unexpected: {type(error).__name__}"
        log.error("flow %s can't be folded", key[1], exc_info=error)
    return unreadable_row(*key, first=first, last=message.sequence, time=message.time, why=why)
