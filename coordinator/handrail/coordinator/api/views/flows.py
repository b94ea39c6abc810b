"""API views of flows."""

from __future__ import annotations

from handrail.coordinator.api.views.acts import act_view
from handrail.coordinator.api.views.approvals import approval_view, asks_people, fitted
from handrail.coordinator.api.views.divergences import divergence_view
from handrail.coordinator.api.views.expectations import expectations
from handrail.mesh.flow import Effect, Escalation, Flow, Migration, RunState, StepRun
from handrail.mesh.fold import is_final, status, status_reason
from handrail.mesh.fold.migration import why_not
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import Unreadable, timestamp
from handrail.v1 import flow_service_pb2 as pb

_AWAITED = frozenset({RunState.OWED, RunState.BACKOFF})


def flow_view(flow: Flow, unfit: frozenset[str] = frozenset()) -> pb.Flow:
    """Shows a flow with all its parts; `unfit` are agents with live workers but none that fits its version."""
    view = flow_summary(flow)
    view.step_runs.extend(run_view(flow, run) for run in flow.runs.values())
    view.expectations.extend(expectations(flow, unfit))
    approvals = (approval_view(flow, proposal) for proposal in flow.proposals.values() if asks_people(proposal))
    view.approvals.extend(fitted(approvals))
    view.escalations.extend(map(_escalation, flow.escalations.values()))
    view.effects.extend(map(effect_view, flow.effects.values()))
    view.divergences.extend(map(divergence_view, flow.divergences))
    view.migrations.extend(map(_migration, flow.migrations))
    view.acts.extend(act_view(flow, pending) for pending in flow.acts.values())
    return view


def listed_flow(item: Flow | Unreadable) -> pb.Flow:
    """Shows a flow in a list; one that can't be read has the reason and no status."""
    if isinstance(item, Flow):
        return flow_summary(item)
    return pb.Flow(flow_id=item.flow_id, flow_type=item.flow_type, status_reason=f"can't be read: {item.why}")


def migration_plan(flow: Flow, target: Template) -> pb.MigrationPlan:
    """Tells whether a flow can move to a version now."""
    return pb.MigrationPlan(
        flow_id=flow.flow_id,
        version=flow.template.version,
        status=status(flow),
        reasons=why_not(flow, target),
        etag=flow.etag,
    )


def flow_summary(flow: Flow) -> pb.Flow:
    """Shows a flow in a list: its status and the reason, without its parts."""
    now = status(flow)
    view = pb.Flow(
        flow_id=flow.flow_id,
        flow_type=flow.flow_type,
        key=flow.key,
        template_version=flow.template.version,
        status=now,
        status_reason=status_reason(flow, now),
        requester=flow.requester,
        last_sequence=flow.last_sequence,
        etag=flow.etag,
        message_count=flow.message_count,
    )
    if flow.first is not None:
        view.start_time.CopyFrom(timestamp(flow.start_time))
    if flow.last_time is not None:
        view.update_time.CopyFrom(timestamp(flow.last_time))
    if flow.halt is not None:
        view.halt_mode = flow.halt.mode
    return view


def run_view(flow: Flow, run: StepRun) -> pb.StepRun:
    """Shows one step run of the flow. In a closed flow nobody owes anything."""
    name = "ABANDONED" if run.state in _AWAITED and is_final(flow) else run.state.name
    return pb.StepRun(
        step=run.step.name,
        agent=run.step.agent,
        root=run.root,
        run=run.run,
        attempt=run.attempt,
        max_attempts=run.budget,
        status=pb.StepRunStatus.Value(f"STEP_RUN_STATUS_{name}"),
        trigger_time=timestamp(run.trigger.time),
        end_time=None if run.ended is None else timestamp(run.ended),
        output_ids=[run.outputs[index] for index in sorted(run.outputs)],
        last_error=run.refused or run.last_error,
        # A decision that triggers a step is not a fact: it is the trigger itself.
        input_sequences=[flow.facts.get(event_id, run.trigger).sequence for event_id in run.inputs],
        outcome_unknown=bool(run.unknown),
    )


def effect_view(effect: Effect) -> pb.FlowEffect:
    """Shows one effect and the state of its undo."""
    return pb.FlowEffect(
        event_id=effect.recorded.event_id,
        type=effect.recorded.type,
        step=effect.step.name,
        agent=effect.step.agent,
        status=pb.EffectStatus.Value(f"EFFECT_STATUS_{effect.state.name}"),
        sequence=effect.recorded.sequence,
    )


def _escalation(escalation: Escalation) -> pb.OpenEscalation:
    return pb.OpenEscalation(
        escalation_id=escalation.escalation_id,
        cause=escalation.cause,
        reason=escalation.reason,
        step=escalation.step,
        subject_id=escalation.subject_id,
        choices=escalation.choices,
        open_time=timestamp(escalation.opened),
    )


def _migration(migration: Migration) -> pb.FlowMigration:
    return pb.FlowMigration(
        from_version=migration.from_version,
        to_version=migration.to_version,
        by=migration.by,
        reason=migration.reason,
        time=timestamp(migration.time),
        sequence=migration.sequence,
    )
