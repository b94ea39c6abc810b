"""Reconciles a flow: decides and appends until `decide` returns None; then sets its timers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

from handrail.coordinator.decide import agents_due, decide, messages
from handrail.coordinator.decide.timers import timers
from handrail.coordinator.reconcile.agent_queues import AgentQueues
from handrail.coordinator.reconcile.flow_in_hand import Delivered, FlowInHand
from handrail.coordinator.reconcile.flows_in_hand import FlowKey, FlowsInHand
from handrail.coordinator.reconcile.presence import Presence, Present
from handrail.coordinator.reconcile.timer_schedule import TimerSchedule
from handrail.mesh import telemetry
from handrail.mesh.errors import TooLarge, WrongSequence
from handrail.mesh.flow import Flow
from handrail.mesh.fold import is_final
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.subjects import Kind

log = logging.getLogger(__name__)


class Reconciler:
    """Reconciles flows. Idempotent; safe to run concurrently on any replica.

    It works on flows in hand and folds its own appends without reading them: every append names the sequence that it is
    based on, and what an own append can't show is read before it matters (`FlowInHand.must_be_read_before`).

    `tell` is called with flows that agents have to read before they do anything for them.
    """

    def __init__(
        self,
        store: FlowStore,
        timer_schedule: TimerSchedule,
        presence: Presence,
        queues: AgentQueues,
        *,
        tell: Callable[[str], None] = lambda flow_id: None,
    ) -> None:
        self._store = store
        self._timer_schedule = timer_schedule
        self._presence = presence
        self._queues = queues
        self._tell = tell
        self.flows = FlowsInHand(store)

    def turn(self, key: FlowKey) -> AbstractAsyncContextManager[None]:
        """Serializes work per flow within this process."""
        return self.flows.turn(key)

    def covers(self, key: FlowKey, sequence: int) -> bool:
        """Tells whether the flow is in hand and contains this message, which is not void."""
        hand = self.flows.get(key)
        return hand is not None and hand.covers(sequence) and sequence not in hand.flow.void

    def is_decided(self, key: FlowKey, sequence: int) -> bool:
        """Tells whether the flow is in hand, and nothing is left to decide about this message, which is not void."""
        hand = self.flows.get(key)
        return hand is not None and sequence <= hand.decided_up_to and self.covers(key, sequence)

    def is_over(self, key: FlowKey, *, since: int) -> bool:
        """Tells whether the flow in hand is over, and no timer is armed: those before `since` may have armed some."""
        hand = self.flows.get(key)
        if hand is None or (self.flows.replicated and not hand.is_read) or not is_final(hand.flow):
            return False
        return not hand.armed if hand.armed is not None else _began_at(hand.flow, since)

    async def attend(
        self, key: FlowKey, *, at_least: int, now: datetime, delivered: Callable[[], Delivered] | None = None
    ) -> Flow:
        """Decides what is due at `now` in a flow that holds at least sequence `at_least`. Sets no timers.

        `delivered` returns the message there; if it follows the flow in hand, that saves a read. It is called unless
        everything that follows from the message is decided already.
        If the message there is void, the flow is as the stream has it, with the broker's times. Raises HandrailError:
        FLOW_NOT_FOUND, TEMPLATE_NOT_FOUND, BROKER_UNAVAILABLE.
        """
        async with self.turn(key):
            hand = self.flows.get(key)
            if hand is not None and delivered is not None and self.is_decided(key, at_least):
                return hand.flow  # an own append, delivered before its answer arrived
            hand = await self.flows.reaching(key, at_least, delivered and delivered())
            await self.settle(hand, await self.present(now))
            if at_least in hand.flow.void:
                await self.flows.read_exactly(hand)
            return hand.flow

    async def reconcile(
        self,
        flow_type: str,
        flow_id: str,
        *,
        since: int,
        at_least: int,
        now: datetime,
        timers_at_least: int | None = None,
    ) -> Flow:
        """Decides what is due at `now` in a flow that holds at least sequence `at_least`, and sets its timers.

        It sets only the timers that messages from `since` on changed, because earlier messages were handled before; 0
        sets all, or those that TIMER lacks, as a server knows that has it up to `timers_at_least`. Raises what `attend`
        raises.
        """
        key = (flow_type, flow_id)
        async with self.turn(key):
            hand = await self.flows.reaching(key, at_least)
            present = await self.present(now)
            overtaken = await self.settle(hand, present)
            while not hand.is_read:
                await self.flows.read_exactly(hand)
                overtaken = await self.settle(hand, present) or overtaken
            await self._set_timers(
                hand, present.time, since=since, overtaken=overtaken, timers_at_least=timers_at_least
            )
            return hand.flow

    async def present(self, now: datetime) -> Present:
        """Returns the present, at least `now`: a message may have waited, and more time passed than its timestamp says.

        Raises BROKER_UNAVAILABLE.
        """
        present = await self._presence.present()
        return Present(max(now, present.time), present.absences)

    async def settle(self, hand: FlowInHand, present: Present) -> bool:
        """Decides until nothing is due. Returns whether a decision was overtaken by another message, and is void.

        After a failure the flow is in hand no more: what is left to decide is found when its message comes again.
        """
        try:
            overtaken = await self._decide(hand, present)
        except BaseException:
            self.flows.drop((hand.flow.flow_type, hand.flow.flow_id))
            raise
        hand.decided_up_to = hand.flow.last_sequence
        if hand.is_new_to_agents():
            self._tell(hand.flow.flow_id)
        return overtaken

    async def _decide(self, hand: FlowInHand, present: Present) -> bool:
        while (entry := await self._next(hand.flow, present)) is not None:
            if hand.must_be_read_before(entry):
                await self.flows.read_exactly(hand)
                continue
            try:
                sequence = await self.append(hand, entry, now=present.time)
            except WrongSequence as error:
                await self.flows.read_on(hand, error.last_sequence or 0)
                continue
            if sequence in hand.flow.void:
                await self.flows.read_exactly(hand)
            void = hand.flow.void.get(sequence)
            if void is not None:
                what = entry.address.message_type
                log.info("flow %s: %s at %d is void: %s", hand.flow.flow_id, what, sequence, void.text)
                return True
        return False

    async def append(self, hand: FlowInHand, entry: Entry, *, now: datetime) -> int:
        """Appends one message and folds it; raises WrongSequence if the flow moved on."""
        flow = hand.flow
        with telemetry.span(
            "decide", flow_id=flow.flow_id, parent=flow.last_span_id, decision=entry.address.message_type
        ):
            # A released proposal has exactly the bytes that were proposed.
            if entry.address.kind is not Kind.RELEASED:
                entry.event.span_id = telemetry.current_span_id()
            if entry.address.kind is Kind.UNDO:
                # With one copy of the stream, the expected sequence proves that nothing came in between.
                entry.event.exact = not self.flows.replicated
            sequence = await self._store_entry(hand, entry, now)
        log.debug(
            "flow %s: recorded %s %s at %d", flow.flow_id, entry.address.kind, entry.address.message_type, sequence
        )
        return sequence

    async def _store_entry(self, hand: FlowInHand, entry: Entry, now: datetime) -> int:
        """Appends a message. If the broker calls it too large, it appends a smaller one: a command without the data it
        repeats, or a halt that asks a person to look.
        """
        try:
            return await self.flows.append(hand, entry, now=now)
        except TooLarge as error:
            log.error("flow %s: %s", hand.flow.flow_id, error.text)
            smaller = messages.smaller(hand.flow, entry, error, datetime.now(UTC))
            if smaller is None:
                raise
            return await self.flows.append(hand, smaller, now=now)

    async def _next(self, flow: Flow, present: Present) -> Entry | None:
        """Looks at the queues of the agents with due attempts, then asks `decide`."""
        queues = await self._queues.of(agents_due(flow, present.time))
        return decide(flow, present.time, present.absences, queues)

    async def _set_timers(
        self, hand: FlowInHand, now: datetime, *, since: int, overtaken: bool, timers_at_least: int | None
    ) -> None:
        """Replaces the armed timers by those that the flow needs now."""
        flow = hand.flow
        # A timer that is due and led to nothing waits for something else and is dropped; if a decision was overtaken by
        # another message, it is kept to try again.
        after = {name: due for name, due in timers(flow).items() if due > now or overtaken}
        if timers_at_least is None:
            before = await self._armed(hand, since)
        else:
            # Only those that are needed: another replica may just have armed one for a message that is not seen here.
            before = await self._timer_schedule.standing(flow.flow_type, flow.flow_id, after, at_least=timers_at_least)
        hand.armed = None  # until it is known to be done
        await self._timer_schedule.change(
            flow.flow_type, flow.flow_id, before=before, after=after, last_sequence=flow.last_sequence
        )
        hand.armed = after

    async def _armed(self, hand: FlowInHand, since: int) -> Mapping[str, datetime]:
        """The timers that are armed: as this replica set them, or as the messages before `since` need them."""
        if not since:
            return {}
        if hand.armed is not None:
            return hand.armed
        flow = hand.flow
        if _began_at(flow, since):
            return {}
        history = await self._store.read(flow.flow_type, flow.flow_id, at_least=flow.last_sequence)
        earlier = [recorded for recorded in history if recorded.sequence < since]
        return timers(await self._store.fold(flow.flow_type, flow.flow_id, earlier)) if earlier else {}


def _began_at(flow: Flow, since: int) -> bool:
    """Tells whether the flow has no message before this sequence that could have armed a timer."""
    return flow.first is not None and flow.first.sequence >= since
