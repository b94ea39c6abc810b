"""API views of a folded flow. Pure: a view shows only what the flow contains."""

from handrail.coordinator.api.views.acts import act_view, unreadable_act
from handrail.coordinator.api.views.approvals import approval_view, asks_people, unreadable_approval
from handrail.coordinator.api.views.divergences import divergence_counts, divergence_view
from handrail.coordinator.api.views.events import event_view
from handrail.coordinator.api.views.expectations import expectations
from handrail.coordinator.api.views.flows import flow_summary, flow_view, listed_flow, migration_plan
from handrail.coordinator.api.views.plan import compensation_plan
from handrail.coordinator.api.views.usage import counted_usages, version_usages

__all__ = [
    "act_view",
    "approval_view",
    "asks_people",
    "compensation_plan",
    "counted_usages",
    "divergence_counts",
    "divergence_view",
    "event_view",
    "expectations",
    "flow_summary",
    "flow_view",
    "listed_flow",
    "migration_plan",
    "unreadable_act",
    "unreadable_approval",
    "version_usages",
]
