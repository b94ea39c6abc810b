"""What people ask of a flow: votes, compensation, cancelling, retries, answers to escalations.

Each is one recorded decision, judged by the fold like any other; then the flow is attended to until nothing is left to
decide.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from handrail.coordinator import judgements
from handrail.coordinator.attend import Attendant
from handrail.coordinator.auth import Caller
from handrail.coordinator.timers import timers
from handrail.mesh.envelope import Entry
from handrail.mesh.errors import HandrailError, WrongSequence
from handrail.mesh.flow import Flow
from handrail.mesh.store import FlowStore
from handrail.v1.decision_pb2 import Choice
from handrail.v1.error_reason_pb2 import ErrorReason

_IN_FLIGHT = 0.05
"""Seconds to wait for a message that the leader has taken and not stored yet."""

_TRIES = 20
"""How often a decision is made anew because the flow moved on while it was being recorded."""

Judge = Callable[[Flow], Entry | None]
"""Builds the decision for a flow as it stands; None where it is recorded already; raises where it may not be made."""


class Interventions:
    """Records what people decide. Every method returns the flow as it stands afterwards.

    Each raises FLOW_NOT_FOUND, ETAG_MISMATCH, BROKER_UNAVAILABLE and what its judgement raises.
    """

    def __init__(self, store: FlowStore, attendant: Attendant) -> None:
        self._store = store
        self._attendant = attendant

    async def vote(
        self,
        flow_type: str,
        flow_id: str,
        *,
        approval_id: str,
        digest: str,
        approve: bool,
        comment: str,
        caller: Caller,
    ) -> Flow:
        """Vote on a proposal in the caller's name; see `judgements.vote`, and APPROVAL_CLOSED, DIGEST_MISMATCH."""

        def judge(flow: Flow) -> Entry:
            return judgements.vote(
                flow, caller, approval_id=approval_id, digest=digest, approve=approve, comment=comment
            )

        return await self._record(flow_type, flow_id, judge)

    async def compensate(
        self,
        flow_type: str,
        flow_id: str,
        *,
        reason: str,
        to_step: str,
        etag: str,
        request_id: str,
        caller: Caller,
    ) -> Flow:
        """Halt a flow and undo its effects, all or back to a step; see `judgements.compensation`."""

        def judge(flow: Flow) -> Entry | None:
            return judgements.compensation(
                flow, caller, reason=reason, to_step=to_step, etag=etag, request_id=request_id
            )

        return await self._record(flow_type, flow_id, judge)

    async def cancel(
        self,
        flow_type: str,
        flow_id: str,
        *,
        reason: str,
        keep_effects: bool,
        etag: str,
        request_id: str,
        caller: Caller,
    ) -> Flow:
        """Halt a flow, undo its effects unless they are to be kept, and end it CANCELLED; see
        `judgements.cancelling`."""

        def judge(flow: Flow) -> Entry | None:
            return judgements.cancelling(
                flow, caller, reason=reason, keep_effects=keep_effects, etag=etag, request_id=request_id
            )

        return await self._record(flow_type, flow_id, judge)

    async def retry_step(
        self, flow_type: str, flow_id: str, *, step: str, root: str, reason: str, etag: str, caller: Caller
    ) -> Flow:
        """Have a step done again; see `judgements.retrying`."""

        def judge(flow: Flow) -> Entry:
            return judgements.retrying(flow, caller, step=step, root=root, reason=reason, etag=etag)

        return await self._record(flow_type, flow_id, judge)

    async def resolve(
        self,
        flow_type: str,
        flow_id: str,
        *,
        escalation_id: str,
        choice: Choice.ValueType,
        reason: str,
        etag: str,
        caller: Caller,
    ) -> Flow:
        """Answer an open escalation; see `judgements.answer`."""

        def judge(flow: Flow) -> Entry:
            return judgements.answer(flow, caller, escalation_id=escalation_id, choice=choice, reason=reason, etag=etag)

        return await self._record(flow_type, flow_id, judge)

    async def migrate(
        self,
        flow_type: str,
        flow_id: str,
        *,
        to_version: int,
        reason: str,
        etag: str,
        request_id: str,
        caller: Caller,
    ) -> Flow:
        """Move a flow to another version; see `judgements.migrating`, and TEMPLATE_NOT_FOUND."""
        target = await self._store.catalog.template(flow_type, to_version)

        def judge(flow: Flow) -> Entry | None:
            return judgements.migrating(flow, target, caller, reason=reason, etag=etag, request_id=request_id)

        return await self._record(flow_type, flow_id, judge)

    async def _record(self, flow_type: str, flow_id: str, judge: Judge) -> Flow:
        async with self._attendant.turn(flow_id):
            flow = await self._store.load_newest(flow_type, flow_id)
            for _ in range(_TRIES):
                entry = judge(flow)
                if entry is None:
                    return flow
                try:
                    sequence, after = await self._attendant.append(flow, entry)
                except WrongSequence as refused:
                    flow = await self._moved_on(flow, refused)
                    continue
                void = after.void.get(sequence)
                if void is not None:
                    reason = void.reason or ErrorReason.ERROR_REASON_WRONG_STATUS
                    raise judgements.refusal(reason, after, void.text)
                return await self._settle(flow, after)
        raise HandrailError(
            ErrorReason.ERROR_REASON_ETAG_MISMATCH,
            f"flow {flow_id} moved on {_TRIES} times while the decision was being recorded; try again",
        )

    async def _moved_on(self, flow: Flow, refused: WrongSequence) -> Flow:
        """The flow with what the refusal of an append named; a message in flight to its replicas takes a moment."""
        named = refused.last_sequence or 0
        if named <= flow.last_sequence:
            await asyncio.sleep(_IN_FLIGHT)
            named = await self._store.newest(flow.flow_type, flow.flow_id)
        return await self._store.catch_up(flow, at_least=named)

    async def _settle(self, before: Flow, after: Flow) -> Flow:
        """Attend to what follows. Where another replica is at it already, it will see to it: the decision is in the
        stream."""
        try:
            return await self._attendant.settle(
                after, judgements.moment(after), before=timers(before), since=before.last_sequence + 1
            )
        except HandrailError as error:
            if error.reason != ErrorReason.ERROR_REASON_FLOW_BUSY:
                raise
            return await self._store.load(after.flow_type, after.flow_id, at_least=after.last_sequence)
