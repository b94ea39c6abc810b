"""Proposals, votes and releases of one flow."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from handrail.cli.verify.plan import passes_by_expiry
from handrail.cli.verify.record import Message
from handrail.v1.decision_pb2 import (
    ApprovalCause,
    ApprovalGiven,
    ApprovalReassigned,
    ApprovalRefused,
    ApprovalRequested,
    FlowMigrated,
    GateRequest,
)
from handrail.v1.template_pb2 import Gate, RejectAction

_ENDS_THE_FLOW = (RejectAction.REJECT_ACTION_COMPENSATE, RejectAction.REJECT_ACTION_FAIL)


@dataclass
class Proposed:
    """A proposal and the decisions about it."""

    message: Message
    gates: Sequence[Gate]
    requests: list[tuple[int, ApprovalRequested]] = field(default_factory=list)
    given: list[tuple[int, ApprovalGiven]] = field(default_factory=list)
    reassigned: list[tuple[int, ApprovalReassigned]] = field(default_factory=list)
    refused_at: int = 0
    released: Message | None = None

    def request(self, before: int) -> ApprovalRequested | None:
        """Returns the last approval request before a sequence."""
        asked = [request for sequence, request in self.requests if sequence < before]
        return asked[-1] if asked else None

    def voters(self, gate: GateRequest, before: int) -> set[str]:
        """Returns the different people who count with a yes for a gate, before a sequence."""
        request = self.request(before)
        if request is None:
            return set()
        barred = {canonical(each.by) for at, each in self.reassigned if at < before}
        if gate.not_the_requester and gate.requester:
            barred.add(canonical(gate.requester))
        voters: set[str] = set()
        seen: set[str] = set()
        for sequence, yes in self.given:
            people = {canonical(person) for person in (yes.voter, yes.on_behalf_of) if person}
            if (
                self.requests[0][0] < sequence < before
                and yes.cause == ApprovalCause.APPROVAL_CAUSE_VOTE
                and yes.digest == request.digest
                and set(yes.roles) & self._roles(gate, sequence)
                and not people & (barred | seen)
            ):
                voters.add(canonical(yes.voter))
                seen |= people
        return voters

    def _roles(self, gate: GateRequest, before: int) -> set[str]:
        """Returns the roles that may vote at a gate, before a sequence."""
        others = [each.roles for at, each in self.reassigned if at < before and each.gate == gate.gate]
        return set(others[-1] if others else gate.roles)

    def passed(self, before: int) -> bool:
        """Tells whether every gate that asked had its quorum, or expired with approval, before a sequence."""
        request = self.request(before)
        return request is not None and all(self._gate_passed(gate, before) for gate in request.gates)

    def _gate_passed(self, gate: GateRequest, before: int) -> bool:
        if len(self.voters(gate, before)) >= max(1, gate.quorum):
            return True
        by_expiry = {each.name for each in self.gates if passes_by_expiry(each)}
        expired = any(
            sequence < before and yes.cause == ApprovalCause.APPROVAL_CAUSE_EXPIRY for sequence, yes in self.given
        )
        return expired and gate.gate in by_expiry


@dataclass
class Approvals:
    """The proposals of one flow, by event id."""

    proposals: dict[str, Proposed] = field(default_factory=dict)
    refusals: dict[str, Message] = field(default_factory=dict)
    """The refusals that count, by their own event id: a step may wait for them."""
    ends: list[int] = field(default_factory=list)
    """The sequences of those that halt the flow."""
    strays: list[Message] = field(default_factory=list)
    """Releases without a proposal, or with different bytes."""
    moved_at: int = 0
    """The sequence of the last move to another version: earlier votes no longer count."""

    def propose(self, message: Message, gates: Sequence[Gate]) -> None:
        """Adds a proposal."""
        self.proposals.setdefault(message.event_id, Proposed(message, gates))

    def release(self, message: Message) -> bool:
        """Adds a release; returns whether it releases a proposal."""
        proposed = self.proposals.get(message.event_id)
        same = proposed is not None and (proposed.message.agent, proposed.message.type, proposed.message.data) == (
            message.agent,
            message.type,
            message.data,
        )
        if proposed is None or not same:
            self.strays.append(message)
            return False
        if proposed.released is None:
            proposed.released = message
        return True

    def decide(self, message: Message) -> None:
        """Adds a decision if it is about approvals."""
        if message.type == ApprovalRequested.DESCRIPTOR.full_name:
            request = ApprovalRequested.FromString(message.data)
            if request.proposal_id in self.proposals:
                self.proposals[request.proposal_id].requests.append((message.sequence, request))
        elif message.type == ApprovalGiven.DESCRIPTOR.full_name:
            given = ApprovalGiven.FromString(message.data)
            if given.proposal_id in self.proposals:
                self.proposals[given.proposal_id].given.append((message.sequence, given))
        elif message.type == ApprovalReassigned.DESCRIPTOR.full_name:
            reassigned = ApprovalReassigned.FromString(message.data)
            if reassigned.proposal_id in self.proposals:
                self.proposals[reassigned.proposal_id].reassigned.append((message.sequence, reassigned))
        elif message.type == ApprovalRefused.DESCRIPTOR.full_name:
            self._refuse(message, ApprovalRefused.FromString(message.data))
        elif message.type == FlowMigrated.DESCRIPTOR.full_name:
            self.moved_at = message.sequence

    def all_decided(self, up_to: int) -> bool:
        """Tells whether by then every proposal was released or refused."""
        return all(self._decided(each, up_to) for each in self.proposals.values())

    def undecided(self, up_to: int) -> Iterator[Proposed]:
        """Yields the proposals that by then were neither released nor refused."""
        return (each for each in self.proposals.values() if not self._decided(each, up_to))

    def _refuse(self, message: Message, refused: ApprovalRefused) -> None:
        proposed = self.proposals.get(refused.proposal_id)
        if proposed is None or proposed.refused_at or proposed.released or proposed.passed(message.sequence):
            return
        request = proposed.request(message.sequence)
        by_hand = refused.cause == ApprovalCause.APPROVAL_CAUSE_RESOLUTION
        if by_hand or (request is not None and request.digest == refused.digest):
            proposed.refused_at = message.sequence
            self.refusals[message.event_id] = message
            asking = [gate.gate for gate in request.gates] if request is not None else [g.name for g in proposed.gates]
            if any(gate.name in asking and gate.on_reject in _ENDS_THE_FLOW for gate in proposed.gates):
                self.ends.append(message.sequence)

    def _decided(self, proposed: Proposed, up_to: int) -> bool:
        if proposed.message.sequence > up_to:
            return True
        released = proposed.released is not None and proposed.released.sequence <= up_to
        return released or 0 < proposed.refused_at <= up_to


def canonical(identity: str) -> str:
    """Returns one form for all spellings of a person's name: NFKC, case-folded, without surrounding blanks."""
    return unicodedata.normalize("NFKC", identity).casefold().strip()
