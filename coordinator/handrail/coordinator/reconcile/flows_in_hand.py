"""The flows in hand: those that this replica folded last. They save reads; no decision depends on them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime

from handrail.coordinator.reconcile.flow_in_hand import Delivered, FlowInHand
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow
from handrail.mesh.fold import migration_of
from handrail.mesh.streams import purged
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.wire.envelope import Entry, Recorded
from handrail.v1.error_reason_pb2 import ErrorReason

FlowKey = tuple[str, str]
"""Type and id of a flow."""

_MOST = 1024
"""The most flows in hand; one of ten messages takes some 50 kB."""


class FlowsInHand:
    """Reads flows and keeps them, at most `_MOST`: the one that was used longest ago goes first.

    Whoever reads a flow or changes it takes its `turn` first.
    """

    def __init__(self, store: FlowStore) -> None:
        self._store = store
        self._flows: OrderedDict[FlowKey, FlowInHand] = OrderedDict()
        self._turns: dict[FlowKey, tuple[asyncio.Lock, int]] = {}
        self._replicated = True

    @property
    def replicated(self) -> bool:
        """Whether FLOW has several copies. True until it is known: then nothing is taken for certain."""
        return self._replicated

    @replicated.setter
    def replicated(self, replicated: bool) -> None:
        if replicated != self._replicated:
            self._replicated = replicated
            self.forget()

    @asynccontextmanager
    async def turn(self, key: FlowKey) -> AsyncIterator[None]:
        """Serializes work per flow within this process: concurrent work would only void each other's decisions."""
        lock, users = self._turns.get(key, (asyncio.Lock(), 0))
        self._turns[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._turns.pop(key)
            if users > 1:
                self._turns[key] = (lock, users - 1)

    def get(self, key: FlowKey) -> FlowInHand | None:
        """Returns the flow, if it is in hand."""
        return self._flows.get(key)

    def drop(self, key: FlowKey) -> None:
        """Lets go of a flow: something went wrong with it."""
        self._flows.pop(key, None)

    def forget(self) -> None:
        """Lets go of all flows, because the stream was replaced."""
        self._flows.clear()

    def distrust_timers(self) -> None:
        """Forgets which timers are armed: another replica may have handled messages of these flows."""
        for hand in self._flows.values():
            hand.armed = None

    async def reaching(self, key: FlowKey, sequence: int, delivered: Delivered | None = None) -> FlowInHand:
        """Returns the flow with everything up to this sequence; reads only what is missing, also without `delivered`.

        Raises FLOW_NOT_FOUND, FLOW_ARCHIVED, TEMPLATE_NOT_FOUND and BROKER_UNAVAILABLE.
        """
        hand = self._flows.get(key)
        if hand is None:
            return self._keep(key, await self._store.load(*key, at_least=sequence))
        self._flows.move_to_end(key)
        if delivered is not None:
            hand.take_delivered(delivered)
        if not hand.covers(sequence):
            await self.read_on(hand, sequence)
        return hand

    async def newest(self, key: FlowKey) -> FlowInHand:
        """Reads the flow as new as the stream's leader has it, whatever is in hand. Raises what `reaching` raises."""
        try:
            with self._letting_go(key):
                return self._keep(key, await self._store.load_newest(*key))
        except HandrailError as error:
            if error.reason != ErrorReason.ERROR_REASON_FLOW_NOT_FOUND or key not in self._flows:
                raise
            self.drop(key)
            raise purged.archived(*key) from error

    async def read_on(self, hand: FlowInHand, at_least: int) -> None:
        """Reads what was stored since, at least up to this sequence."""
        wanted = max(at_least, hand.flow.last_sequence)
        with self._letting_go(_key(hand)):
            hand.take_news(await self._store.catch_up(hand.base, at_least=wanted))

    async def read_exactly(self, hand: FlowInHand) -> None:
        """Reads own appends and what is around them, unless the flow is as it was read."""
        if not hand.is_read:
            await self._read_again(hand, hand.flow.last_sequence)

    async def append(self, hand: FlowInHand, entry: Entry, *, now: datetime) -> int:
        """Appends a message and folds it; returns its sequence. `now` is a time that has passed at the broker.

        Raises WrongSequence if the flow has moved on, FLOW_ARCHIVED if it was purged, and the errors of `Bus.publish`.
        """
        with self._letting_go(_key(hand)):
            appended = await self._store.append(hand.flow, entry)
        hand.seen.add(appended.sequence)
        moves = migration_of(Recorded(entry.address, entry.event, appended.sequence, now)) is not None
        if moves or not appended.is_new or not hand.take_append(entry, appended.sequence, now=now):
            await self._read_again(hand, appended.sequence)
        return appended.sequence

    async def _read_again(self, hand: FlowInHand, at_least: int) -> None:
        with self._letting_go(_key(hand)):
            hand.take_read(await self._store.catch_up(hand.last_read, at_least=at_least))

    @contextmanager
    def _letting_go(self, key: FlowKey) -> Iterator[None]:
        """Lets go of a flow that turns out to be purged: what is read of it next is read whole."""
        try:
            yield
        except HandrailError as error:
            if error.reason == ErrorReason.ERROR_REASON_FLOW_ARCHIVED:
                self.drop(key)
            raise

    def _keep(self, key: FlowKey, flow: Flow) -> FlowInHand:
        before = self._flows.pop(key, None)
        hand = self._flows[key] = FlowInHand(flow, replicated=self._replicated)
        if before is not None:
            hand.armed, hand.seen = before.armed, before.seen
        if len(self._flows) > _MOST:
            self._flows.popitem(last=False)
        return hand


def _key(hand: FlowInHand) -> FlowKey:
    return hand.flow.flow_type, hand.flow.flow_id
