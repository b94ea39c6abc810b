"""Requests of people about a flow: votes, compensation, cancellation, retries, answers to escalations.

Each is recorded as one decision, which the fold judges like any other; then the flow is reconciled. A request that
would not count is refused before it is recorded. A repeated call with the same request id gets the answer of the first
call; so does a vote that its voter repeats.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from handrail.coordinator.decide import operator_requests, two_persons
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.operator_requests import Judge
from handrail.coordinator.reconcile import repeated_calls
from handrail.coordinator.reconcile.flow_in_hand import FlowInHand
from handrail.coordinator.reconcile.flows_in_hand import FlowKey
from handrail.coordinator.reconcile.presence import Present
from handrail.coordinator.reconcile.reconciler import Reconciler
from handrail.mesh import telemetry
from handrail.mesh.errors import HandrailError, WrongSequence
from handrail.mesh.flow import Flow, Void
from handrail.mesh.flow.acts import PendingAct
from handrail.mesh.fold import NO_VERSIONS, Versions
from handrail.mesh.printable import clean
from handrail.mesh.streams import purged
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.identity import canonical
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.event_pb2 import CallerRequest

log = logging.getLogger(__name__)

_IN_FLIGHT = 0.05
"""Seconds to wait for a message that the leader has accepted and replicas have not stored yet."""

_TRIES = 20
"""How often a decision is made again because the flow changed while it was being recorded."""


class Answered(NamedTuple):
    """The flow as a call is answered with it, and the position of the message that answers the call."""

    flow: Flow
    sequence: int

    @property
    def pending(self) -> PendingAct | None:
        """The act that the call asked for, if it needs a second person and so was not done; else None."""
        return next((act for act in self.flow.acts.values() if act.recorded.sequence == self.sequence), None)


class OperatorActions:
    """Records what people decide."""

    def __init__(self, store: FlowStore, reconciler: Reconciler) -> None:
        self._store = store
        self._reconciler = reconciler

    async def record(
        self,
        flow_type: str,
        flow_id: str,
        judge: Judge,
        *,
        caller: Caller,
        request: CallerRequest | None = None,
        versions: Versions = NO_VERSIONS,
    ) -> Flow:
        """Does what `answer` does, for calls that need no second person; returns the flow."""
        answered = await self.answer(flow_type, flow_id, judge, caller=caller, request=request, versions=versions)
        return answered.flow

    async def answer(
        self,
        flow_type: str,
        flow_id: str,
        judge: Judge,
        *,
        caller: Caller,
        request: CallerRequest | None = None,
        versions: Versions = NO_VERSIONS,
    ) -> Answered:
        """Records what `judge` decides on the flow for the caller, reconciles the flow, and returns its new state.
        An act that needs two persons is recorded as pending.

        `request` is the call as recorded (`repeated_calls.caller_request`); None for a caller within this process.
        `versions` are the templates that the flow may move to. Raises FLOW_NOT_FOUND, ETAG_MISMATCH,
        REQUEST_ID_REUSED, BROKER_UNAVAILABLE and what `judge` raises.
        """
        call = request or CallerRequest(caller=canonical(caller.subject))
        key = (flow_type, flow_id)
        async with self._reconciler.turn(key):
            return await self._answer(key, _Wish(judge, caller, call, versions))

    async def _answer(self, key: FlowKey, wish: _Wish) -> Answered:
        flows = self._reconciler.flows
        hand = flows.get(key)
        if hand is None or hand.may_lack_events or purged.may_have_left(hand.flow.last_time):
            hand = await flows.newest(key)
        for _ in range(_TRIES):
            present = await self._reconciler.present(operator_requests.moment(hand.flow))
            judged: Entry | int | None = wish.granted(hand.flow, present.time)
            if judged is None:
                # A flow in hand may be old. If the broker accepts an append to it, it was not; a refusal needs a look.
                hand = await flows.newest(key)
                judged = wish.judged(hand.flow, present.time)
            if isinstance(judged, int):
                await flows.read_exactly(hand)
                return Answered(await self._as_answered(hand.flow, judged), judged)
            try:
                sequence = await self._reconciler.append(hand, judged, now=present.time)
            except WrongSequence as refused:
                await self._read_on(hand, refused)
                continue
            await self._settle(hand, present, sequence)
            if sequence not in hand.flow.void:
                _alert(hand.flow, judged)
                return Answered(hand.flow, sequence)
            # An agent's message arrived in between and may have settled the request.
            again = wish.judged(hand.flow, present.time)
            if isinstance(again, int):
                return Answered(await self._as_answered(hand.flow, again), again)
            _refuse(hand.flow, hand.flow.void[sequence])
        raise HandrailError(
            ErrorReason.ERROR_REASON_ETAG_MISMATCH,
            f"flow {key[1]} changed {_TRIES} times while the decision was being recorded; try again",
        )

    async def _as_answered(self, flow: Flow, sequence: int) -> Flow:
        """The flow as it was in the answer to the call that recorded the message at this sequence."""
        if sequence == flow.last_sequence:
            return flow
        history = await self._store.read(flow.flow_type, flow.flow_id, at_least=flow.last_sequence)
        end = repeated_calls.end_of_answer(history, sequence)
        shown = [recorded for recorded in history if recorded.sequence <= end]
        return await self._store.fold(flow.flow_type, flow.flow_id, shown)

    async def _settle(self, hand: FlowInHand, present: Present, sequence: int) -> None:
        """Decides what follows from the decision recorded at this sequence, and reads the flow.

        What follows from the time at which it was stored is decided once that is read.
        """
        await self._reconciler.settle(hand, present)
        await self._reconciler.flows.read_exactly(hand)
        if hand.flow.last_sequence == sequence:
            await self._reconciler.settle(hand, present._replace(time=operator_requests.moment(hand.flow)))
            await self._reconciler.flows.read_exactly(hand)

    async def _read_on(self, hand: FlowInHand, refused: WrongSequence) -> None:
        """Reads up to the sequence named by a refused append. Replicas may not have stored that message yet."""
        named = refused.last_sequence or 0
        if named <= hand.flow.last_sequence:
            await asyncio.sleep(_IN_FLIGHT)
            named = await self._store.newest(hand.flow.flow_type, hand.flow.flow_id)
        await self._reconciler.flows.read_on(hand, named)


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a caller asks for."""

    judge: Judge
    caller: Caller
    call: CallerRequest
    versions: Versions

    def judged(self, flow: Flow, now: datetime) -> Entry | int:
        """The entry to record, or the sequence where the same call, or an equivalent one, is already recorded.

        Raises HandrailError if the flow refuses it.
        """
        earlier = repeated_calls.recorded_before(flow, self.call)
        if earlier is not None:
            return earlier.sequence
        judged = self.judge(flow, self.caller)
        if not isinstance(judged, int):
            judged = two_persons.requested(flow, judged, datetime.now(UTC))
        if isinstance(judged, int):
            return judged
        entry = repeated_calls.stamped(flow, judged, self.call, now=now)
        _refuse(flow, operator_requests.why_void(flow, entry, self.versions))
        return entry

    def granted(self, flow: Flow, now: datetime) -> Entry | None:
        """The entry to record; None if there is none, or the flow refuses it."""
        try:
            judged = self.judged(flow, now)
        except HandrailError:
            return None
        return None if isinstance(judged, int) else judged


def _alert(flow: Flow, entry: Entry) -> None:
    """Makes it known that a person did alone what needs two."""
    said = entry.event.confirmation
    if said.break_glass:
        log.error(
            "flow %s: %s broke the glass and did alone what needs two persons (%s, act %s): %s",
            flow.flow_id,
            clean(said.by),
            entry.address.message_type,
            said.act_id,
            clean(said.reason),
        )
        telemetry.count("broken_glass", flow_type=flow.flow_type)


def _refuse(flow: Flow, void: Void | None) -> None:
    """Raises the refusal of a decision that does not count, if there is one."""
    if void is not None:
        raise operator_requests.refusal(void.reason or ErrorReason.ERROR_REASON_WRONG_STATUS, flow, void.text)
