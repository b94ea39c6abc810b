"""Acts of people that need two persons: the template says which, the fold judges the confirmation.

`ActRequested` holds the decision that one person asked for. The decision counts only in a message that carries the
confirmation of another person: of the same act, in time. Its position in the stream decides, not a replica's clock.
"""

from __future__ import annotations

from datetime import datetime

from google.protobuf.any_pb2 import Any

from handrail.mesh.flow import Flow, Void
from handrail.mesh.flow.acts import OPERATOR, PendingAct
from handrail.mesh.flow.values import replace
from handrail.mesh.fold.persons import doing, missing
from handrail.mesh.template.compilation import bounded
from handrail.mesh.template.persons import PERSONS, ActState, spelled, why_not
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Recorded, type_of
from handrail.mesh.wire.identity import same
from handrail.v1.act_pb2 import ActConfirmation
from handrail.v1.decision_pb2 import ActRequested, ActWithdrawn
from handrail.v1.error_reason_pb2 import ErrorReason


def digest_of(flow_id: str, data: Any) -> str:
    """The digest that a confirmation is bound to, as 64 hex digits: flow, type and bytes of the decision."""
    return ids.act_digest(about=flow_id, message_type=type_of(data), data=data.value)


def judge(flow: Flow, recorded: Recorded) -> Void | None:
    """Why a decision does not count for want of a second person; None if it has one, or needs none."""
    event = recorded.event
    if event.HasField("confirmation"):
        pending = flow.acts.get(event.confirmation.act_id)
        if pending is not None and digest_of(flow.flow_id, event.data) != pending.digest:
            return Void("it is not the act that was confirmed", ErrorReason.ERROR_REASON_DIGEST_MISMATCH)
        return judge_confirmation(pending, event.confirmation, recorded.time)
    wanting = missing(flow, event.data)
    if wanting:
        return Void(f"{spelled(wanting)} needs two persons", ErrorReason.ERROR_REASON_TWO_PERSONS_NEEDED)
    return None


def judge_confirmation(pending: PendingAct | None, said: ActConfirmation, now: datetime) -> Void | None:
    """Why this confirmation does not count at `now`; None if it does. The API calls it before it records one."""
    refused = why_not(pending, said, now, role=OPERATOR)
    return None if refused is None else Void(refused.text, refused.reason)


def settle(flow: Flow, recorded: Recorded) -> None:
    """Notes that an act was done, once the decision that did it counts."""
    if not recorded.event.HasField("confirmation"):
        return
    said = recorded.event.confirmation
    state = ActState.FORCED if said.break_glass else ActState.CONFIRMED
    _end(flow, said.act_id, state, recorded, said.by, said.reason)


def apply_requested(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies the request of the first person. It changes nothing in the flow: another one has to confirm it."""
    asked = ActRequested.FromString(recorded.event.data.value)
    done = doing(asked.act, flow.pending_resolution)
    if not done.acts & flow.template.require_two:
        return Void("one person may do it alone")
    if not asked.by or not same(asked.by, done.by):
        return Void("it does not name who asked for it", ErrorReason.ERROR_REASON_MISSING_ROLE)
    if asked.digest != digest_of(flow.flow_id, asked.act):
        return Void("its digest differs from the act's", ErrorReason.ERROR_REASON_DIGEST_MISMATCH)
    if asked.persons != PERSONS or bounded(asked.confirm_within) != flow.template.confirm_within:
        return Void("the template wants two persons within another time")
    flow.acts = {
        **flow.acts,
        recorded.event_id: PendingAct(
            recorded, asked.act, done.acts, asked.by, asked.digest, recorded.time + flow.template.confirm_within
        ),
    }
    return None


def apply_withdrawn(flow: Flow, recorded: Recorded) -> Void | None:
    """Applies the withdrawal of a pending act."""
    withdrawn = ActWithdrawn.FromString(recorded.event.data.value)
    pending = flow.acts.get(withdrawn.act_id)
    if pending is None:
        return Void("no such act is pending", ErrorReason.ERROR_REASON_ACT_NOT_FOUND)
    if pending.state is not ActState.PENDING:
        return Void(f"the act is {pending.state.name.lower()}", ErrorReason.ERROR_REASON_ACT_CLOSED)
    if not withdrawn.by:
        return Void("it does not name who withdrew it", ErrorReason.ERROR_REASON_MISSING_ROLE)
    _end(flow, withdrawn.act_id, ActState.WITHDRAWN, recorded, withdrawn.by, withdrawn.reason)
    return None


def _end(flow: Flow, act_id: str, state: ActState, recorded: Recorded, by: str, reason: str) -> None:
    ended = replace(flow.acts[act_id], state=state, settled_by=by, settle_reason=reason, settled=recorded)
    flow.acts = {**flow.acts, act_id: ended}
