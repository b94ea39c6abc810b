"""What people ask of a flow: votes, compensation, cancelling, retries, answers to escalations.

Each is one recorded decision, judged by the fold like any other; then the flow is attended to until nothing is left to
decide.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from handrail.coordinator import entries
from handrail.coordinator.attend import Attendant
from handrail.coordinator.auth import Caller
from handrail.coordinator.timers import timers
from handrail.mesh.envelope import Entry
from handrail.mesh.errors import HandrailError, WrongSequence
from handrail.mesh.flow import Flow, Proposal, StepRun
from handrail.mesh.fold import is_final, status
from handrail.mesh.fold.approvals import judge_vote
from handrail.mesh.fold.attempts import next_run
from handrail.mesh.fold.halts import may_halt
from handrail.mesh.store import FlowStore
from handrail.v1.decision_pb2 import (
    ApprovalCause,
    ApprovalGiven,
    ApprovalRefused,
    Choice,
    FlowStatus,
    HaltMode,
    Resolved,
    StepReopened,
)
from handrail.v1.error_reason_pb2 import ErrorReason

_TRIES = 20
"""How often a decision is made anew because the flow moved on while it was being recorded."""

_RECORDED_THOUGH_REFUSED = frozenset(
    {ErrorReason.ERROR_REASON_APPROVAL_CLOSED, ErrorReason.ERROR_REASON_DIGEST_MISMATCH}
)
"""Votes that are refused and audited: they came too late, or for something else than the proposal."""

Judge = Callable[[Flow], Entry | None]
"""Builds the decision for a flow as it stands; None where it is recorded already; raises where it may not be made."""


class Interventions:
    """Records what people decide. Every method returns the flow as it stands afterwards."""

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
        """Vote on a proposal in the caller's name.

        Raises APPROVAL_NOT_FOUND, APPROVAL_CLOSED, DIGEST_MISMATCH, ALREADY_VOTED, MISSING_ROLE,
        REQUESTER_MAY_NOT_VOTE.
        """

        def judge(flow: Flow) -> Entry:
            proposal = flow.proposals.get(approval_id)
            if proposal is None:
                raise _error(ErrorReason.ERROR_REASON_APPROVAL_NOT_FOUND, flow, f"it has no proposal {approval_id}")
            refused = judge_vote(proposal, caller.subject, caller.roles, digest)
            if refused is not None and refused.reason not in _RECORDED_THOUGH_REFUSED:
                raise _error(refused.reason, flow, refused.text)
            return _vote(flow, proposal, digest=digest, approve=approve, comment=comment, caller=caller)

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
        """Halt a flow and undo its effects, all or back to a step. Raises WRONG_STATUS, STEP_NOT_FOUND,
        ETAG_MISMATCH."""

        def judge(flow: Flow) -> Entry | None:
            if _is_repeat(flow, request_id):
                return None
            _require_etag(flow, etag)
            if to_step and not flow.sequence_of_step(to_step):
                raise _error(ErrorReason.ERROR_REASON_STEP_NOT_FOUND, flow, f"no fact of a step «{to_step}» is there")
            return _halt(
                flow,
                HaltMode.HALT_MODE_COMPENSATE,
                reason,
                caller,
                to_step=to_step,
                request_id=request_id,
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
        """Halt a flow, undo its effects unless they are to be kept, and end it CANCELLED. Raises WRONG_STATUS,
        ETAG_MISMATCH."""

        def judge(flow: Flow) -> Entry | None:
            if _is_repeat(flow, request_id):
                return None
            _require_etag(flow, etag)
            return _halt(
                flow,
                HaltMode.HALT_MODE_CANCEL,
                reason,
                caller,
                keep_effects=keep_effects,
                request_id=request_id,
            )

        return await self._record(flow_type, flow_id, judge)

    async def retry_step(
        self, flow_type: str, flow_id: str, *, step: str, root: str, reason: str, etag: str, caller: Caller
    ) -> Flow:
        """Have a step done again. Raises STEP_NOT_FOUND, WRONG_STATUS, ETAG_MISMATCH."""

        def judge(flow: Flow) -> Entry:
            _require_etag(flow, etag)
            if flow.is_halted:
                raise _error(
                    ErrorReason.ERROR_REASON_WRONG_STATUS, flow, "it is halted; no forward step starts any more"
                )
            run = _run(flow, step, root)
            message = StepReopened(
                step=run.step.name, root=run.root, run=next_run(run), by=caller.subject, reason=reason
            )
            return entries.decision(
                flow, message, about=f"{run.step.name}:{run.root}", now=_now(flow), step=run.step.name, root=run.root
            )

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
        """Answer an open escalation. Raises ESCALATION_NOT_FOUND, CHOICE_NOT_OFFERED, ETAG_MISMATCH."""

        def judge(flow: Flow) -> Entry:
            _require_etag(flow, etag)
            wanted = escalation_id or (next(iter(flow.escalations)) if len(flow.escalations) == 1 else "")
            escalation = flow.escalations.get(wanted)
            if escalation is None:
                open_ones = ", ".join(flow.escalations) or "none"
                raise _error(
                    ErrorReason.ERROR_REASON_ESCALATION_NOT_FOUND,
                    flow,
                    f"no such escalation is open; open: {open_ones}",
                )
            if choice not in escalation.choices:
                offered = ", ".join(Choice.Name(c).removeprefix("CHOICE_") for c in escalation.choices)
                raise _error(ErrorReason.ERROR_REASON_CHOICE_NOT_OFFERED, flow, f"it offers {offered}")
            message = Resolved(escalation_id=wanted, choice=choice, by=caller.subject, reason=reason)
            return entries.decision(flow, message, about=wanted, now=_now(flow))

        return await self._record(flow_type, flow_id, judge)

    async def _record(self, flow_type: str, flow_id: str, judge: Judge) -> Flow:
        async with self._attendant.turn(flow_id):
            for _ in range(_TRIES):
                flow = await self._store.load(flow_type, flow_id)
                entry = judge(flow)
                if entry is None:
                    return flow
                try:
                    sequence, after = await self._attendant.append(flow, entry)
                except WrongSequence:
                    continue
                void = after.void.get(sequence)
                if void is not None:
                    reason = void.reason or ErrorReason.ERROR_REASON_WRONG_STATUS
                    raise _error(reason, after, void.text)
                return await self._settle(flow, after)
        raise HandrailError(
            ErrorReason.ERROR_REASON_ETAG_MISMATCH,
            f"flow {flow_id} moved on {_TRIES} times while the decision was being recorded; try again",
        )

    async def _settle(self, before: Flow, after: Flow) -> Flow:
        """Attend to what follows. Where another replica is at it already, it will see to it: the decision is in the
        stream."""
        try:
            return await self._attendant.settle(
                after, _now(after), before=timers(before), since=before.last_sequence + 1
            )
        except HandrailError as error:
            if error.reason != ErrorReason.ERROR_REASON_FLOW_BUSY:
                raise
            return await self._store.load(after.flow_type, after.flow_id, at_least=after.last_sequence)


def _now(flow: Flow) -> datetime:
    """The broker's clock, as the flow last saw it: this replica's own could run ahead of the one that judges."""
    return flow.last_time or datetime.now(UTC)


def _vote(flow: Flow, proposal: Proposal, *, digest: str, approve: bool, comment: str, caller: Caller) -> Entry:
    event_id = proposal.recorded.event_id
    refused = proposal.recorded.event.data
    vote = ApprovalGiven() if approve else ApprovalRefused(proposal=refused)
    vote.proposal_id, vote.digest, vote.comment = event_id, digest, comment
    vote.voter, vote.cause = caller.subject, ApprovalCause.APPROVAL_CAUSE_VOTE
    vote.roles.extend(sorted(caller.roles))
    step = proposal.recorded.event.step
    return entries.decision(flow, vote, about=f"{event_id}:{caller.subject}", now=_now(flow), step=step)


def _halt(
    flow: Flow,
    mode: HaltMode.ValueType,
    reason: str,
    caller: Caller,
    *,
    request_id: str,
    to_step: str = "",
    keep_effects: bool = False,
) -> Entry:
    if not may_halt(flow, mode) or (mode == HaltMode.HALT_MODE_CANCEL and is_final(flow)):
        standing = FlowStatus.Name(status(flow)).removeprefix("FLOW_STATUS_")
        raise _error(ErrorReason.ERROR_REASON_WRONG_STATUS, flow, f"it is {standing}")
    return entries.halted(
        flow,
        mode,
        reason,
        _now(flow),
        by=caller.subject,
        to_step=to_step,
        keep_effects=keep_effects,
        request_id=request_id,
    )


def _is_repeat(flow: Flow, request_id: str) -> bool:
    return bool(request_id) and flow.halt is not None and flow.halt.request_id == request_id


def _require_etag(flow: Flow, etag: str) -> None:
    if etag and etag != flow.etag:
        raise _error(
            ErrorReason.ERROR_REASON_ETAG_MISMATCH, flow, f"it changed since etag {etag} was read; it is {flow.etag}"
        )


def _run(flow: Flow, step: str, root: str) -> StepRun:
    runs = [run for run in flow.runs.values() if run.step.name == step and root in ("", run.root)]
    if len(runs) == 1:
        return runs[0]
    if not runs:
        raise _error(ErrorReason.ERROR_REASON_STEP_NOT_FOUND, flow, f"no run of step «{step}» is there")
    roots = ", ".join(run.root for run in runs)
    raise _error(
        ErrorReason.ERROR_REASON_STEP_NOT_FOUND, flow, f"step «{step}» has several runs; name one by its root: {roots}"
    )


def _error(reason: ErrorReason.ValueType, flow: Flow, text: str) -> HandrailError:
    return HandrailError(reason, f"flow {flow.flow_id}: {text}", flow_id=flow.flow_id, flow_type=flow.flow_type)
