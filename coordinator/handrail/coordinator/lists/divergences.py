"""Lists divergences from the stream: exact, with a latency that grows with the stream's size.

Only the fold can tell which message is a divergence; its subject can't. So each page reads and folds every flow that
has a message of the requested agents, flows without divergences included.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from handrail.coordinator.lists.flows import Covers, Listed, Listing, chunks, every_type
from handrail.mesh.bus import Bus, RawMessage
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Divergence
from handrail.mesh.streams import FLOW, stream_walk
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.wire.subjects import COORDINATOR, Address, parse
from handrail.v1.error_reason_pb2 import ErrorReason

_logger = logging.getLogger(__name__)

EXAMINED = 2000
"""How many messages one page scans: some 400 flows of five messages, read and folded within half a second."""

_AT_ONCE = 64

_Key = tuple[str, str]
_Found = Mapping[int, Divergence]


@dataclass(frozen=True, slots=True)
class Seen:
    """A divergence and the flow that it happened in."""

    flow_type: str
    flow_id: str
    divergence: Divergence


class DivergenceScanner:
    """Lists divergences. Every call also raises what reading the stream raises."""

    def __init__(self, bus: Bus, store: FlowStore) -> None:
        self._bus = bus
        self._store = store

    async def page(
        self,
        *,
        size: int,
        cursor: int = 0,
        flow_type: str = "",
        agent: str = "",
        since: datetime | None = None,
        covers: Covers = every_type,
    ) -> Listing[Seen]:
        """Lists divergences by the time their messages were stored, newest first, none older than `since`."""
        rows: list[Listed[Seen]] = []
        known: dict[_Key, _Found] = {}
        examined = 0
        subject_filter = f"flow.{flow_type or '*'}.*.*.{agent or '*'}.>"
        async for some in chunks(stream_walk.newest_first(self._bus, FLOW, [subject_filter], below=cursor), _AT_ONCE):
            shown = [message for message in some if (address := _address(message)) and covers(address.flow_type)]
            await self._look(shown, known)
            for message in some:
                if since is not None and message.time < since:
                    return Listing(tuple(rows), 0)
                examined += 1
                address = _address(message)
                found = None if address is None else known.get(_key(address), {}).get(message.sequence)
                if address is not None and found is not None:
                    rows.append(Listed(Seen(address.flow_type, address.flow_id, found), message.sequence))
                if len(rows) == size or examined == EXAMINED:
                    return Listing(tuple(rows), message.sequence)
        return Listing(tuple(rows), 0)

    async def _look(self, messages: Iterable[RawMessage], known: dict[_Key, _Found]) -> None:
        """Adds the divergences of the flows that these messages, newest first, belong to."""
        newest: dict[_Key, int] = {}
        for message in messages:
            address = _address(message)
            if address is not None and _key(address) not in known:
                newest.setdefault(_key(address), message.sequence)
        found = await asyncio.gather(*(self._divergences(key, sequence) for key, sequence in newest.items()))
        known.update(zip(newest, found, strict=True))

    async def _divergences(self, key: _Key, at_least: int) -> _Found:
        try:
            flow = await self._store.load(*key, at_least=at_least)
        except Exception as error:
            if isinstance(error, HandrailError) and error.reason == ErrorReason.ERROR_REASON_BROKER_UNAVAILABLE:
                raise
            _logger.warning("flow %s is omitted from the divergences: %r", key[1], error)
            return {}
        return {divergence.sequence: divergence for divergence in flow.divergences}


def _key(address: Address) -> _Key:
    return address.flow_type, address.flow_id


def _address(message: RawMessage) -> Address | None:
    """Returns the address of an agent's message; None for the coordinator's messages and unreadable ones."""
    try:
        address = parse(message.subject)
    except HandrailError:
        return None
    return None if address.agent == COORDINATOR else address
