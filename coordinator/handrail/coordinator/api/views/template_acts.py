"""API views of acts on templates, and on the policy, that need two persons."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from handrail.analysis.diff.weakening import weakened
from handrail.mesh.template import Template
from handrail.mesh.template.decisions import TemplateAct, TemplateDecisions
from handrail.mesh.template.persons import CONFIRM_WITHIN, PERSONS, ActState, has_expired, spelled
from handrail.mesh.wire.envelope import timestamp
from handrail.mesh.wire.subjects import POLICY
from handrail.v1 import act_pb2 as pb
from handrail.v1.act_pb2 import Act
from handrail.v1.template_pb2 import InstallationPolicy

_STATUS = {
    ActState.PENDING: pb.ActStatus.ACT_STATUS_PENDING,
    ActState.CONFIRMED: pb.ActStatus.ACT_STATUS_CONFIRMED,
    ActState.FORCED: pb.ActStatus.ACT_STATUS_FORCED,
    ActState.WITHDRAWN: pb.ActStatus.ACT_STATUS_WITHDRAWN,
}


def template_act_view(act: TemplateAct, *, now: datetime | None = None, warnings: Iterable[str] = ()) -> pb.PendingAct:
    """Shows an act in its state at `now`; None: as it was when it was asked for."""
    decided = act.decided
    view = pb.PendingAct(
        act_id=act.act_id,
        acts=sorted(act.acts),
        flow_type="" if act.name == POLICY else act.name,
        summary=_summary(act),
        warnings=warnings,
        by=act.by,
        reason=decided.reason,
        digest=act.digest,
        persons=PERSONS,
        status=pb.ActStatus.ACT_STATUS_PENDING,
        request_time=timestamp(act.asked_at),
        expire_time=timestamp(act.expires),
        data=act.request.act,
    )
    if now is not None:
        view.status = pb.ActStatus.ACT_STATUS_EXPIRED if has_expired(act, now) else _STATUS[act.state]
        view.settled_by, view.settle_reason = act.settled_by, act.settle_reason
        if act.settled_at is not None:
            view.settle_time.CopyFrom(timestamp(act.settled_at))
    return view


def activation_warnings(active: Template | None, template: Template) -> list[str]:
    """What activating a version takes away from new flows; empty if none was active."""
    return [] if active is None else weakened(active, template)


def policy_warnings(decisions: TemplateDecisions, policy: InstallationPolicy) -> list[str]:
    """What a policy takes away from the one in force."""
    kept = frozenset(policy.require_two)
    kept |= {Act.ACT_CHANGE_POLICY} if kept else frozenset()
    gone = decisions.require_two - kept
    return [f"One person is enough for {spelled(gone)}; before, it took two."] if gone else []


def _summary(act: TemplateAct) -> str:
    decided = act.decided
    if not isinstance(decided, InstallationPolicy):
        return f"activate version {decided.version} of {act.name}{', forced' if decided.force else ''}"
    if not decided.require_two:
        return "let one person do everything to templates"
    within = decided.confirm_within.ToTimedelta() if decided.HasField("confirm_within") else CONFIRM_WITHIN
    return f"require two persons for {spelled(decided.require_two)}, the second within {within}"
