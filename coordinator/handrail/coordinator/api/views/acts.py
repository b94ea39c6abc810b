"""API views of acts that need two persons."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from google.protobuf.any_pb2 import Any

from handrail.coordinator.api.qualified_id import QualifiedId, qualified
from handrail.mesh.flow import Flow
from handrail.mesh.flow.acts import PendingAct
from handrail.mesh.fold.persons import doing
from handrail.mesh.template.persons import PERSONS, ActState, has_expired
from handrail.mesh.wire.envelope import Unreadable, timestamp, type_of
from handrail.v1 import act_pb2 as pb
from handrail.v1.decision_pb2 import (
    ApprovalReassigned,
    Choice,
    FlowHalted,
    FlowMigrated,
    HaltMode,
    Resolved,
    StepReopened,
)

_STATUS = {
    ActState.PENDING: pb.ActStatus.ACT_STATUS_PENDING,
    ActState.CONFIRMED: pb.ActStatus.ACT_STATUS_CONFIRMED,
    ActState.FORCED: pb.ActStatus.ACT_STATUS_FORCED,
    ActState.WITHDRAWN: pb.ActStatus.ACT_STATUS_WITHDRAWN,
}


def act_view(
    flow: Flow, pending: PendingAct, *, now: datetime | None = None, warnings: Iterable[str] = ()
) -> pb.PendingAct:
    """Shows an act of the flow. Whether it has expired is told by `now`; None: by the time of the flow's last message.

    `warnings` are what to know before it is confirmed.
    """
    moment = now or flow.last_time
    expired = moment is not None and has_expired(pending, moment)
    view = pb.PendingAct(
        act_id=qualified(flow, pending.act_id),
        acts=sorted(pending.acts),
        flow_id=flow.flow_id,
        flow_type=flow.flow_type,
        summary=summary(pending.data),
        warnings=warnings,
        by=pending.by,
        reason=doing(pending.data).reason,
        digest=pending.digest,
        persons=PERSONS,
        status=pb.ActStatus.ACT_STATUS_EXPIRED if expired else _STATUS[pending.state],
        request_time=timestamp(pending.recorded.time),
        expire_time=timestamp(pending.expires),
        settled_by=pending.settled_by,
        settle_reason=pending.settle_reason,
        data=pending.data,
    )
    if pending.settled is not None:
        view.settle_time.CopyFrom(timestamp(pending.settled.time))
    return view


def unreadable_act(item: Unreadable) -> pb.PendingAct:
    """Shows an act that can't be read: the reason, without a status."""
    why = f"can't be read: {item.why}"
    return pb.PendingAct(
        act_id=str(QualifiedId(item.flow_type, item.flow_id, item.proposal_id)),
        flow_id=item.flow_id,
        flow_type=item.flow_type,
        summary=why,
    )


def summary(data: Any) -> str:
    """Says what a person's decision does, for people."""
    say = _SUMMARIES.get(type_of(data))
    return type_of(data) if say is None else say(data.value)


def _of_halt(body: bytes) -> str:
    halted = FlowHalted.FromString(body)
    if halted.mode == HaltMode.HALT_MODE_COMPENSATE:
        return f"undo the flow's effects{f', back to step {halted.to_step}' if halted.to_step else ''}"
    if halted.mode == HaltMode.HALT_MODE_CANCEL:
        return f"cancel the flow{', keeping its effects' if halted.keep_effects else ''}"
    return f"halt the flow: {HaltMode.Name(halted.mode).removeprefix('HALT_MODE_')}"


def _of_reopening(body: bytes) -> str:
    return f"do step {StepReopened.FromString(body).step} again"


def _of_answer(body: bytes) -> str:
    resolved = Resolved.FromString(body)
    return f"answer escalation {resolved.escalation_id} with {Choice.Name(resolved.choice).removeprefix('CHOICE_')}"


def _of_migration(body: bytes) -> str:
    migrated = FlowMigrated.FromString(body)
    return f"move the flow from version {migrated.from_version} to version {migrated.to_version}"


def _of_reassignment(body: bytes) -> str:
    reassigned = ApprovalReassigned.FromString(body)
    return f"let {' or '.join(reassigned.roles)} vote at gate {reassigned.gate} on proposal {reassigned.proposal_id}"


_SUMMARIES: dict[str, Callable[[bytes], str]] = {
    FlowHalted.DESCRIPTOR.full_name: _of_halt,
    StepReopened.DESCRIPTOR.full_name: _of_reopening,
    Resolved.DESCRIPTOR.full_name: _of_answer,
    FlowMigrated.DESCRIPTOR.full_name: _of_migration,
    ApprovalReassigned.DESCRIPTOR.full_name: _of_reassignment,
}
