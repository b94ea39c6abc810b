"""Proposals: evaluates their gates, and applies requests, votes, reassignments and expiries in stream order."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from google.protobuf.message import Message

from handrail.mesh.errors import PolicyError
from handrail.mesh.flow import Ask, Ballot, Flow, Proposal, ProposalState, Void
from handrail.mesh.flow.facts import FlowFacts
from handrail.mesh.flow.values import replace
from handrail.mesh.fold import rules, triggers
from handrail.mesh.fold.votes import counted, judge_vote
from handrail.mesh.template import GateSpec
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Recorded, type_of
from handrail.mesh.wire.identity import canonical, why_ambiguous
from handrail.v1.decision_pb2 import (
    ApprovalCause,
    ApprovalGiven,
    ApprovalReassigned,
    ApprovalRefused,
    ApprovalRequested,
    Choice,
)
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.template_pb2 import EXPIRY_ACTION_APPROVE, EXPIRY_ACTION_REJECT, ExpiryAction, RejectAction


def evaluate(flow: Flow, recorded: Recorded) -> Proposal:
    """Evaluates the gates of a proposal. A gate that can't be evaluated asks for approval."""
    data = recorded.event.data
    message = flow.template.contracts.decode(data)
    facts = rules.facts_at(flow, recorded)
    asks = tuple(
        Ask(gate, reason, _requester(flow, gate, message))
        for gate in flow.template.gates_on(recorded.type)
        if (reason := _why_it_asks(gate, message, facts)) is not None
    )
    digest = ids.approval_digest(
        flow_id=recorded.event.flow_id,
        event_id=recorded.event_id,
        gates=(ask.gate.name for ask in asks),
        message_type=type_of(data),
        data=data.value,
    )
    return Proposal(recorded, asks, digest)


def may_be_released(proposal: Proposal) -> bool:
    """Whether all gates passed: none asked for approval, or each has its quorum."""
    if proposal.state is ProposalState.APPROVED:
        return True
    return proposal.state is ProposalState.EVALUATED and not proposal.asks


def rejected_with(flow: Flow, action: RejectAction.ValueType) -> Proposal | None:
    """A rejected proposal with an asking gate that has this action, or None."""
    for proposal in flow.proposals.values():
        if proposal.state is ProposalState.REJECTED and any(ask.gate.on_reject == action for ask in proposal.asks):
            return proposal
    return None


def apply_requested(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies a request for approval: from now on votes count, and the expiry runs."""
    request = ApprovalRequested.FromString(recorded.event.data.value)
    proposal = flow.proposals.get(request.proposal_id)
    if proposal is None or proposal.state is not ProposalState.EVALUATED or not proposal.asks:
        return Void("no such proposal needs approval")
    if request.digest != proposal.digest:
        return Void("its digest differs from the proposal's", ErrorReason.ERROR_REASON_DIGEST_MISMATCH)
    flow.proposals[request.proposal_id] = replace(proposal, state=ProposalState.PENDING, requested_at=recorded.time)
    return None


def apply_given(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies a yes: it counts for each gate that accepts one of the voter's roles. The last missing yes approves."""
    vote = ApprovalGiven.FromString(recorded.event.data.value)
    proposal = flow.proposals.get(vote.proposal_id)
    if proposal is None:
        return Void("no such proposal", ErrorReason.ERROR_REASON_APPROVAL_NOT_FOUND)
    if vote.cause == ApprovalCause.APPROVAL_CAUSE_EXPIRY:
        return _approve_expired(flow, proposal, recorded.time)
    refused = judge_vote(proposal, vote.voter, vote.roles, vote.digest, on_behalf_of=vote.on_behalf_of)
    if refused is not None:
        return refused
    ballot = Ballot(vote.voter, True, vote.comment, recorded.time, recorded.sequence, vote.on_behalf_of)
    asks = tuple(counted(ask, ballot, frozenset(vote.roles)) for ask in proposal.asks)
    _settle(flow, proposal, asks, (*proposal.ballots, ballot))
    return None


def apply_refused(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies a no: a single one rejects. A step may wait for it."""
    vote = ApprovalRefused.FromString(recorded.event.data.value)
    proposal = flow.proposals.get(vote.proposal_id)
    if proposal is None:
        return Void("no such proposal", ErrorReason.ERROR_REASON_APPROVAL_NOT_FOUND)
    ballots = proposal.ballots
    match vote.cause:
        case ApprovalCause.APPROVAL_CAUSE_EXPIRY:
            if not any(_expired(proposal, ask, EXPIRY_ACTION_REJECT, recorded.time) for ask in proposal.asks):
                return Void("no gate that rejects on expiry has expired")
        case ApprovalCause.APPROVAL_CAUSE_RESOLUTION:
            if not _rejection_is_wished(flow, proposal):
                return Void("no person decided to reject it")
            flow.pending_resolution = None
        case _:
            refused = judge_vote(proposal, vote.voter, vote.roles, vote.digest, on_behalf_of=vote.on_behalf_of)
            if refused is not None:
                return refused
            ballot = Ballot(vote.voter, False, vote.comment, recorded.time, recorded.sequence, vote.on_behalf_of)
            ballots = (*ballots, ballot)
    flow.proposals[vote.proposal_id] = replace(
        proposal, state=ProposalState.REJECTED, ballots=ballots, refused_by=recorded
    )
    triggers.trigger(flow, recorded)
    return None


def apply_reassigned(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies a reassignment: other roles may vote at one gate. Its quorum, its votes and who is barred stay."""
    message = ApprovalReassigned.FromString(recorded.event.data.value)
    proposal = flow.proposals.get(message.proposal_id)
    if proposal is None:
        return Void("no such proposal", ErrorReason.ERROR_REASON_APPROVAL_NOT_FOUND)
    refused = _why_not_reassigned(proposal, message)
    if refused is not None:
        return refused
    asks = tuple(
        replace(
            ask,
            gate=replace(ask.gate, roles=frozenset(message.roles)),
            reassigned_by=(*ask.reassigned_by, message.by),
        )
        if ask.gate.name == message.gate
        else ask
        for ask in proposal.asks
    )
    flow.proposals[message.proposal_id] = replace(proposal, asks=asks)
    return None


def withdraw(flow: Flow, event_ids: Iterable[str]) -> None:
    """Withdraws proposals that are still undecided."""
    for event_id in event_ids:
        proposal = flow.proposals.get(event_id)
        if proposal is not None and proposal.undecided:
            flow.proposals[event_id] = replace(proposal, state=ProposalState.WITHDRAWN)


def ask_anew(flow: Flow, proposal: Proposal) -> None:
    """Restarts the approval of a proposal, as if nobody had been asked."""
    asks = tuple(replace(ask, voters=frozenset(), passed=False) for ask in proposal.asks)
    flow.proposals[proposal.recorded.event_id] = Proposal(proposal.recorded, asks, proposal.digest)


def _approve_expired(flow: Flow, proposal: Proposal, now: datetime) -> Void | None:
    asks = tuple(
        replace(ask, passed=True) if _expired(proposal, ask, EXPIRY_ACTION_APPROVE, now) else ask
        for ask in proposal.asks
    )
    if asks == proposal.asks:
        return Void("no gate that approves on expiry has expired")
    _settle(flow, proposal, asks, proposal.ballots)
    return None


def _settle(flow: Flow, proposal: Proposal, asks: tuple[Ask, ...], ballots: tuple[Ballot, ...]) -> None:
    state = ProposalState.APPROVED if all(ask.passed for ask in asks) else proposal.state
    flow.proposals[proposal.recorded.event_id] = replace(proposal, asks=asks, ballots=ballots, state=state)


def _why_not_reassigned(proposal: Proposal, message: ApprovalReassigned) -> Void | None:
    if proposal.state is not ProposalState.PENDING:
        return Void(f"the approval is {proposal.state.name.lower()}", ErrorReason.ERROR_REASON_APPROVAL_CLOSED)
    if message.digest != proposal.digest:
        return Void("the reassignment is for another digest", ErrorReason.ERROR_REASON_DIGEST_MISMATCH)
    if not any(ask.gate.name == message.gate and not ask.passed for ask in proposal.asks):
        return Void(f'no gate "{message.gate}" waits for votes', ErrorReason.ERROR_REASON_APPROVAL_NOT_FOUND)
    if not message.roles or not all(message.roles) or not canonical(message.by):
        return Void("it names no roles or no person", ErrorReason.ERROR_REASON_MALFORMED)
    return None


def _expired(proposal: Proposal, ask: Ask, action: ExpiryAction.ValueType, now: datetime) -> bool:
    due = proposal.expiry(ask)
    return proposal.state is ProposalState.PENDING and due is not None and ask.gate.on_expiry == action and now >= due


def _rejection_is_wished(flow: Flow, proposal: Proposal) -> bool:
    return (
        flow.pending_resolution is not None
        and flow.pending_resolution.choice == Choice.CHOICE_REJECT
        and flow.pending_resolution.subject_id == proposal.recorded.event_id
    )


def _why_it_asks(gate: GateSpec, message: Message, facts: FlowFacts) -> str | None:
    if gate.when is None:
        return "always"
    try:
        return gate.when.text if gate.when.allows(event=message, flow=facts) else None
    except PolicyError as error:
        return f"its condition can't be evaluated: {error.text}"


def _requester(flow: Flow, gate: GateSpec, message: Message) -> str:
    """The requester; empty if unknown, and then nobody qualifies as an approver."""
    name = _named_requester(flow, gate, message)
    return name if canonical(name) and not why_ambiguous(name) else ""


def _named_requester(flow: Flow, gate: GateSpec, message: Message) -> str:
    if not gate.requester_field:
        return flow.requester
    try:
        return gate.requester(message)
    except AttributeError:
        # The message lacks the field, so the requester is unknown and nobody qualifies.
        return ""
