"""The status of a flow, and whether its end may be recorded."""

from __future__ import annotations

from handrail.mesh.flow import Flow, ProposalState, RunState
from handrail.mesh.fold import approvals, rules
from handrail.v1.decision_pb2 import FlowStatus, HaltMode
from handrail.v1.template_pb2 import REJECT_ACTION_COMPENSATE, REJECT_ACTION_FAIL

FINAL = frozenset(
    {
        FlowStatus.FLOW_STATUS_COMPLETED,
        FlowStatus.FLOW_STATUS_COMPENSATED,
        FlowStatus.FLOW_STATUS_CANCELLED,
        FlowStatus.FLOW_STATUS_FAILED,
    }
)
"""The statuses of flows that are over."""


def status(flow: Flow) -> FlowStatus.ValueType:
    """The status of a flow: as recorded at its end, else derived from what is pending."""
    if flow.closed:
        return flow.closed
    if flow.first is None:
        return FlowStatus.FLOW_STATUS_UNSPECIFIED
    if is_complete(flow):
        return FlowStatus.FLOW_STATUS_COMPLETED
    if flow.escalations:
        return FlowStatus.FLOW_STATUS_ESCALATED
    if flow.halt is not None:
        return _halted_status(flow.halt.mode)
    if any(proposal.state is ProposalState.PENDING for proposal in flow.proposals.values()):
        return FlowStatus.FLOW_STATUS_WAITING_APPROVAL
    return FlowStatus.FLOW_STATUS_RUNNING


def status_reason(flow: Flow, now: FlowStatus.ValueType) -> str:
    """Explains its status `now`; empty while the flow runs well or completed as intended."""
    if flow.closed:
        return flow.closed_reason
    if flow.first is None or now == FlowStatus.FLOW_STATUS_COMPLETED:
        return ""
    if flow.escalations and now == FlowStatus.FLOW_STATUS_ESCALATED:
        return "; ".join(escalation.reason for escalation in flow.escalations.values())
    if flow.halt is not None:
        return flow.halt.reason
    waiting = [p.recorded.type for p in flow.proposals.values() if p.state is ProposalState.PENDING]
    if waiting:
        return f"{', '.join(waiting)} needs approval"
    failing = [run for run in flow.runs.values() if run.state is RunState.BACKOFF]
    return "; ".join(f"step {run.step.name} failed and is retried: {run.last_error}" for run in failing)


def is_final(flow: Flow) -> bool:
    """Whether the flow is over, unless a late outcome or a person reopens it."""
    return status(flow) in FINAL


def is_complete(flow: Flow) -> bool:
    """Whether a completing fact has come and nothing is pending."""
    return (
        flow.halt is None
        and flow.pending_resolution is None
        and any(flow.facts_by_type.get(name) for name in flow.template.completes_with)
        and owes_nothing(flow)
    )


def owes_nothing(flow: Flow) -> bool:
    """Whether nothing is pending: no agent or approver has to answer, and no decision is due by the template."""
    return (
        not any(run.is_open for run in flow.runs.values())
        and not any(proposal.undecided for proposal in flow.proposals.values())
        and approvals.rejected_with(flow, REJECT_ACTION_COMPENSATE) is None
        and approvals.rejected_with(flow, REJECT_ACTION_FAIL) is None
        and not any(effect.orphan and effect.stands for effect in flow.effects.values())
        and rules.outstanding(flow) is None
        and flow.diverged is None
    )


def settled(flow: Flow) -> FlowStatus.ValueType | None:
    """The final status that `FlowClosed` may record now; None while something is left to do, or without a decision."""
    if flow.halt is None:
        return None
    match flow.halt.mode:
        case HaltMode.HALT_MODE_FAIL:
            return FlowStatus.FLOW_STATUS_FAILED
        case HaltMode.HALT_MODE_COMPLETE:
            final = FlowStatus.FLOW_STATUS_COMPLETED
        case HaltMode.HALT_MODE_COMPENSATE if not flow.halt.to_step:
            final = FlowStatus.FLOW_STATUS_COMPENSATED
        case HaltMode.HALT_MODE_CANCEL:
            final = FlowStatus.FLOW_STATUS_CANCELLED
        case _:
            return None
    awaited = flow.halt.mode != HaltMode.HALT_MODE_COMPLETE and flow.open_outcomes()
    return None if awaited or flow.undo_targets() else final


def _halted_status(mode: HaltMode.ValueType) -> FlowStatus.ValueType:
    if mode in (HaltMode.HALT_MODE_COMPENSATE, HaltMode.HALT_MODE_CANCEL):
        return FlowStatus.FLOW_STATUS_COMPENSATING
    if mode == HaltMode.HALT_MODE_HOLD:
        return FlowStatus.FLOW_STATUS_ESCALATED
    return FlowStatus.FLOW_STATUS_RUNNING
