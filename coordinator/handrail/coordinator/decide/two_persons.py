"""Acts that need two persons: what is recorded instead of them, and what the second person may ask for. Pure.

The functions raise HandrailError if the request is not allowed, and return a sequence if the flow already shows it.
"""

from __future__ import annotations

from datetime import datetime

from handrail.coordinator.decide import messages
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.grants import BREAKGLASS, OPERATOR
from handrail.coordinator.decide.operator_requests import moment, refusal
from handrail.mesh.flow import Flow, Void
from handrail.mesh.flow.acts import PendingAct
from handrail.mesh.fold.acts import digest_of, judge_confirmation
from handrail.mesh.fold.persons import doing, missing
from handrail.mesh.template.persons import PERSONS, ActState, has_expired
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.identity import same
from handrail.v1.act_pb2 import ActConfirmation
from handrail.v1.decision_pb2 import ActRequested, ActWithdrawn
from handrail.v1.error_reason_pb2 import ErrorReason

_ROLES = (BREAKGLASS, OPERATOR)


def requested(flow: Flow, entry: Entry, now: datetime) -> Entry | int:
    """Returns what to record for a decision: itself, or the request for a second person if the template wants one.

    Whoever asks for the same again while it waits at `now` gets the sequence of the first request.
    """
    data = entry.event.data
    if entry.event.HasField("confirmation") or not missing(flow, data):
        return entry
    by, digest = doing(data).by, digest_of(flow.flow_id, data)
    for pending in flow.acts.values():
        waits = pending.state is ActState.PENDING and not has_expired(pending, max(now, moment(flow)))
        if waits and pending.digest == digest and same(pending.by, by):
            return pending.recorded.sequence
    message = ActRequested(act=data, by=by, digest=digest, persons=PERSONS)
    message.confirm_within.FromTimedelta(flow.template.confirm_within)
    step, root = entry.event.step, entry.event.root
    return messages.decision(flow, message, about=digest, now=moment(flow), step=step, root=root)


def confirming(
    flow: Flow, caller: Caller, *, act_id: str, digest: str, now: datetime, break_glass_reason: str = ""
) -> Entry | int:
    """Does a pending act: as its second person, or alone with a reason to break the glass.

    Raises ACT_NOT_FOUND, ACT_CLOSED, DIGEST_MISMATCH, SAME_PERSON, MISSING_ROLE, TWO_PERSONS_NEEDED or AMBIGUOUS_NAME.
    """
    pending = flow.acts.get(act_id)
    said = ActConfirmation(
        act_id=act_id,
        digest=digest,
        by=caller.subject,
        roles=[role for role in _ROLES if caller.holds(role, flow.flow_type)],
        break_glass=bool(break_glass_reason),
        reason=break_glass_reason,
    )
    if pending is not None and pending.settled is not None and pending.settled.event.confirmation == said:
        return pending.settled.sequence
    _refuse(flow, judge_confirmation(pending, said, max(now, moment(flow))))
    if pending is None:
        raise refusal(ErrorReason.ERROR_REASON_ACT_NOT_FOUND, flow, f"it has no act {act_id}")
    return _done(flow, pending, said)


def withdrawing(flow: Flow, caller: Caller, *, act_id: str, reason: str) -> Entry | int:
    """Ends a pending act undone; raises ACT_NOT_FOUND, ACT_CLOSED or MISSING_ROLE."""
    pending = flow.acts.get(act_id)
    if pending is None:
        raise refusal(ErrorReason.ERROR_REASON_ACT_NOT_FOUND, flow, f"it has no act {act_id}")
    if pending.settled is not None:
        if pending.state is ActState.WITHDRAWN and same(pending.settled_by, caller.subject):
            return pending.settled.sequence
        raise refusal(ErrorReason.ERROR_REASON_ACT_CLOSED, flow, f"the act is {pending.state.name.lower()}")
    if not caller.holds(OPERATOR, flow.flow_type):
        text = f"{caller.subject} may not withdraw the act: it needs the grant {OPERATOR}@{flow.flow_type}"
        raise refusal(ErrorReason.ERROR_REASON_MISSING_ROLE, flow, text)
    message = ActWithdrawn(act_id=act_id, by=caller.subject, reason=reason)
    return messages.decision(flow, message, about=act_id, now=moment(flow))


def _done(flow: Flow, pending: PendingAct, said: ActConfirmation) -> Entry:
    """Builds the decision that the first person asked for, with the confirmation of the second."""
    asked = pending.recorded.event
    entry = messages.packed_decision(
        flow, pending.data, about=pending.act_id, now=moment(flow), step=asked.step, root=asked.root
    )
    entry.event.confirmation.CopyFrom(said)
    return entry


def _refuse(flow: Flow, void: Void | None) -> None:
    if void is not None:
        raise refusal(void.reason, flow, void.text)
