"""Flows that the index chooses for a replay, read whole from the stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple

from handrail.coordinator.replay.flow_assembly import Flow, Gathering


class Names(NamedTuple):
    """The ids of some flows, the token of the next ones, empty at the end, and how many there are in all."""

    flow_ids: Sequence[str]
    next_token: str
    total: int


Choose = Callable[[str], Awaitable[Names]]
"""Returns the flows after a page token. Raises what the index raises."""


class Chosen(NamedTuple):
    """Some flows, and the share of all that has been read with them, from 0 to 1."""

    flows: list[Flow]
    share: float


async def chosen(gathering: Gathering, choose: Choose) -> AsyncIterator[Chosen]:
    """Yields the flows that the index names, a page at a time. Those that the stream does not have are left out."""
    token, seen, first = "", 0, True
    while token or first:
        names = await choose(token)
        token, first = names.next_token, False
        seen += len(names.flow_ids)
        share = seen / max(names.total, seen, 1) if token else 1.0
        yield Chosen(await gathering.whole(names.flow_ids), share)
