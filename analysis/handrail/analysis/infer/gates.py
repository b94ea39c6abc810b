"""Infers gates from proposals and requests for approval."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from handrail.analysis.infer.notes import Notes, times
from handrail.analysis.infer.traffic import SeenRun, Traffic
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow.facts import FlowFacts
from handrail.mesh.template.terms import Terms
from handrail.mesh.wire.envelope import Recorded, from_timestamp
from handrail.mesh.wire.subjects import Kind
from handrail.v1 import template_pb2 as pb
from handrail.v1.decision_pb2 import (
    ApprovalCause,
    ApprovalGiven,
    ApprovalRefused,
    ApprovalRequested,
    Escalated,
    EscalationCause,
    FlowHalted,
    GateRequest,
    HaltMode,
)

_REQUESTED = ApprovalRequested.DESCRIPTOR.full_name
_GIVEN = ApprovalGiven.DESCRIPTOR.full_name
_REFUSED = ApprovalRefused.DESCRIPTOR.full_name
_ESCALATED = Escalated.DESCRIPTOR.full_name
_HALTED = FlowHalted.DESCRIPTOR.full_name

_ON_REJECT = {
    HaltMode.HALT_MODE_COMPENSATE: pb.REJECT_ACTION_COMPENSATE,
    HaltMode.HALT_MODE_FAIL: pb.REJECT_ACTION_FAIL,
}

ALWAYS = "always"
"""The reason in the requests of a gate without a condition."""

NOBODY_ASKED = "operator"
"""The approvers if nobody was ever asked: those who intervene in any case."""


@dataclass(frozen=True)
class SeenProposal:
    """A proposal with its request for approval, if any, and its flow."""

    recorded: Recorded
    asked: Recorded | None
    flow: Traffic

    @property
    def requests(self) -> Sequence[GateRequest]:
        """The requests of the gates that asked."""
        return ApprovalRequested.FromString(self.asked.event.data.value).gates if self.asked is not None else ()

    def gate(self, name: str) -> GateRequest | None:
        """The request of this gate, or None."""
        return next((request for request in self.requests if request.gate == name), None)


def seen_proposals(flows: Sequence[Traffic]) -> list[SeenProposal]:
    """The decided proposals: people were asked, or they were released without asking."""
    found = []
    for flow in flows:
        requests: dict[str, Recorded] = {}
        for each in flow.decisions(_REQUESTED):
            requests.setdefault(ApprovalRequested.FromString(each.event.data.value).proposal_id, each)
        for each in flow.recorded:
            if each.kind is Kind.PROPOSAL and (each.event_id in requests or each.event_id in flow.facts):
                found.append(SeenProposal(each, requests.get(each.event_id), flow))
    return found


def infer_gates(flows: Sequence[Traffic], runs: Sequence[SeenRun], terms: Terms, notes: Notes) -> Iterator[pb.Gate]:
    """The gates, in the order in which their types were first proposed."""
    proposals = seen_proposals(flows)
    number = 0
    for message_type in dict.fromkeys(each.recorded.type for each in proposals):
        of_type = [each for each in proposals if each.recorded.type == message_type]
        names = dict.fromkeys(request.gate for each in of_type for request in each.requests)
        if not names:
            yield _unasked(message_type, of_type, notes, f"gates[{number}]")
            number += 1
        for name in names:
            yield _gate(name, message_type, of_type, runs, terms, notes, f"gates[{number}]")
            number += 1


def _unasked(message_type: str, proposals: Sequence[SeenProposal], notes: Notes, path: str) -> pb.Gate:
    """A gate for a type that was always released without asking: its approvers are unknown."""
    notes.add(
        path, f"all {times(len(proposals), 'proposal')} were released without asking: name and condition are unknown"
    )
    notes.add(f"{path}.approvers", "nobody was ever asked: say who approves")
    return pb.Gate(
        name=_named_after(message_type),
        on=message_type,
        approvers=pb.Approvers(roles=[NOBODY_ASKED]),
        on_expiry=pb.EXPIRY_ACTION_WAIT,
        on_reject=pb.REJECT_ACTION_COMPENSATE,
    )


def _named_after(message_type: str) -> str:
    """`payments.v1.LargeRefundGranted` gives large_refund_granted."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", message_type.rpartition(".")[2]).lower()[:63]


def _gate(
    name: str,
    message_type: str,
    proposals: Sequence[SeenProposal],
    runs: Sequence[SeenRun],
    terms: Terms,
    notes: Notes,
    path: str,
) -> pb.Gate:
    asked = [each for each in proposals if each.gate(name) is not None]
    newest = asked[-1].gate(name) or GateRequest()
    gate = pb.Gate(
        name=name,
        on=message_type,
        approvers=pb.Approvers(roles=newest.roles, quorum=newest.quorum, not_the_requester=newest.not_the_requester),
    )
    notes.add(path, f"people were asked about {len(asked):,} of {times(len(proposals), 'proposal')}")
    _condition(gate, proposals, terms, notes, path)
    _expiry(gate, asked, notes, path)
    _refusal(gate, asked, runs, notes, path)
    return gate


def _condition(gate: pb.Gate, proposals: Sequence[SeenProposal], terms: Terms, notes: Notes, path: str) -> None:
    """Sets the condition that the requests give as their reason, if it fits the proposals that asked and the others."""
    verdicts = [(each, each.gate(gate.name) is not None) for each in proposals]
    reasons = {request.reason for each in proposals if (request := each.gate(gate.name)) is not None}
    if reasons == {ALWAYS}:
        return
    for reason in sorted(reasons):
        if _tells(reason, gate.on, verdicts, terms):
            gate.when = reason
            notes.add(f"{path}.when", "as its requests say; no proposal contradicts it")
            return
    notes.add(path, "no recorded condition fits all proposals: write `when` yourself")


def _tells(text: str, message_type: str, verdicts: Sequence[tuple[SeenProposal, bool]], terms: Terms) -> bool:
    decode = terms.contracts.decode
    try:
        policy = terms.parse(text, [message_type])
        return all(
            policy.allows(event=decode(each.recorded.event.data), flow=_facts(each, terms.contracts)) is asked
            for each, asked in verdicts
        )
    except HandrailError:
        return False


def _facts(proposal: SeenProposal, contracts: Contracts) -> FlowFacts:
    """The inputs of its gates. Leaves out other proposals that were undecided at that time."""
    by_type: dict[str, list[Recorded]] = {}
    for each in proposal.flow.facts.values():
        if each.sequence < proposal.recorded.sequence:
            by_type.setdefault(each.type, []).append(each)
    return FlowFacts(
        contracts=contracts,
        first_event=proposal.flow.recorded[0],
        by_type=by_type,
        asked={},
        at=proposal.recorded,
    )


def _expiry(gate: pb.Gate, asked: Sequence[SeenProposal], notes: Notes, path: str) -> None:
    given = [time for each in asked if (time := _time_given(each, gate.name)) is not None]
    if not given:
        gate.on_expiry = pb.EXPIRY_ACTION_WAIT
        return
    gate.expires_after.FromTimedelta(given[-1])
    if len(set(given)) > 1:
        notes.add(f"{path}.expires_after", f"the newest of {len(set(given))} that were given")
    seen = [action for each in asked for action in _at_expiry(each)]
    if seen:
        gate.on_expiry = Counter(seen).most_common(1)[0][0]
        notes.add(f"{path}.on_expiry", f"expired: {len(seen):,}")
    else:
        notes.add(f"{path}.expires_after", "no request expired: on_expiry is not on record, REJECT is the default")


def _time_given(proposal: SeenProposal, name: str) -> timedelta | None:
    """The time that people had to answer, from the time of the request to its stated expiry."""
    request = proposal.gate(name)
    if request is None or proposal.asked is None or not request.HasField("expire_time"):
        return None
    return from_timestamp(request.expire_time) - from_timestamp(proposal.asked.event.time)


def _at_expiry(proposal: SeenProposal) -> Iterator[pb.ExpiryAction.ValueType]:
    expiry = ApprovalCause.APPROVAL_CAUSE_EXPIRY
    for each in proposal.flow.recorded:
        data = each.event.data.value
        if each.type == _GIVEN:
            given = ApprovalGiven.FromString(data)
            if (given.proposal_id, given.cause) == (proposal.recorded.event_id, expiry):
                yield pb.EXPIRY_ACTION_APPROVE
        elif each.type == _REFUSED:
            refused = ApprovalRefused.FromString(data)
            if (refused.proposal_id, refused.cause) == (proposal.recorded.event_id, expiry):
                yield pb.EXPIRY_ACTION_REJECT
        elif each.type == _ESCALATED:
            escalated = Escalated.FromString(data)
            expired = escalated.cause == EscalationCause.ESCALATION_CAUSE_APPROVAL_EXPIRED
            if expired and proposal.recorded.event_id in escalated.subject_id:
                yield pb.EXPIRY_ACTION_ESCALATE


def _refusal(gate: pb.Gate, asked: Sequence[SeenProposal], runs: Sequence[SeenRun], notes: Notes, path: str) -> None:
    waited_for = {run.root for run in runs}
    # If several gates asked about a proposal, any of them may have decided.
    alone = [each for each in asked if len(each.requests) == 1]
    seen = [action for each in alone for action in _after_refusal(each, waited_for)]
    if seen:
        gate.on_reject = Counter(seen).most_common(1)[0][0]
        notes.add(f"{path}.on_reject", f"refused: {len(seen):,}")
        return
    # Without a step that waits for the refusal the flow would be stranded.
    gate.on_reject = pb.REJECT_ACTION_COMPENSATE
    notes.add(f"{path}.on_reject", "none was refused: say CONTINUE, with a step that waits for it, COMPENSATE or FAIL")


def _after_refusal(proposal: SeenProposal, waited_for: set[str]) -> Iterator[pb.RejectAction.ValueType]:
    """The consequence of a refusal: a step that waited for it, or a halt, which names its cause only in its reason."""
    for event_id, refusal in proposal.flow.refusals.items():
        if ApprovalRefused.FromString(refusal.event.data.value).proposal_id != proposal.recorded.event_id:
            continue
        halts = [FlowHalted.FromString(each.event.data.value) for each in proposal.flow.decisions(_HALTED)]
        reason = f"{proposal.recorded.type} was refused"
        halted = next((each for each in halts if each.mode in _ON_REJECT and each.reason == reason), None)
        if halted is not None:
            yield _ON_REJECT[halted.mode]
        elif event_id in waited_for:
            yield pb.REJECT_ACTION_CONTINUE
