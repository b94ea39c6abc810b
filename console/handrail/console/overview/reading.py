"""Asks for what the overview shows: all at once, a few rows of each list."""

from __future__ import annotations

from asyncio import create_task, gather
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.field_mask_pb2 import FieldMask

from handrail.console.agents.page import NO_FLOW
from handrail.console.web.asking import Part, part
from handrail.console.web.console import Console
from handrail.console.web.sessions import Session
from handrail.v1 import act_service_pb2 as acts
from handrail.v1 import approval_service_pb2 as approvals
from handrail.v1 import flow_service_pb2 as flows
from handrail.v1 import quarantine_service_pb2 as quarantine
from handrail.v1 import template_service_pb2 as templates

STUCK = "stuck"
OVERDUE = "overdue NOT stuck NOT waiting"
"""Flows that are late and that nobody was asked about yet."""

SHOWN = 10
"""Of each kind, so many of the oldest are read: the oldest of all are among them."""

_INDEXED = FieldMask(paths=["approval_id", "flow_id", "flow_type", "step", "type", "request_time", "expire_time"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The parts of the overview."""

    stuck: Part[flows.ListFlowsResponse]
    overdue: Part[flows.ListFlowsResponse]
    approvals: Part[approvals.ListApprovalsResponse]
    acts: Part[acts.ListActsResponse]
    quarantined: Part[quarantine.ListQuarantinedResponse]
    counts: Part[flows.CountFlowsResponse]
    usage: Part[templates.GetTemplateUsageResponse]
    health: Part[Mapping[str, bool]]


async def read(console: Console, session: Session) -> Reading:
    """Reads the overview of this person. Raises CallFailed if the token is refused."""
    to, token = console.coordinator, session.token
    waiting = approvals.ListApprovalsRequest(page_size=SHOWN, read_mask=_INDEXED)
    held = quarantine.ListQuarantinedRequest(page_size=SHOWN)
    used = templates.GetTemplateUsageRequest(filter=NO_FLOW)
    calls = (
        create_task(part(to.call(to.flows.ListFlows, _oldest(STUCK), token=token))),
        create_task(part(to.call(to.flows.ListFlows, _oldest(OVERDUE), token=token))),
        create_task(part(to.call(to.approvals.ListApprovals, waiting, token=token))),
        create_task(part(to.call(to.acts.ListActs, acts.ListActsRequest(page_size=SHOWN), token=token))),
        create_task(part(to.call(to.quarantine.ListQuarantined, held, token=token))),
        create_task(part(to.call(to.flows.CountFlows, flows.CountFlowsRequest(), token=token))),
        create_task(part(to.call(to.templates.GetTemplateUsage, used, token=token))),
        create_task(part(to.health(token=token))),
    )
    await gather(*calls)
    stuck, overdue, asked, wanted, broken, counts, usage, health = calls
    return Reading(
        stuck=stuck.result(),
        overdue=overdue.result(),
        approvals=asked.result(),
        acts=wanted.result(),
        quarantined=broken.result(),
        counts=counts.result(),
        usage=usage.result(),
        health=health.result(),
    )


def _oldest(wanted: str) -> flows.ListFlowsRequest:
    """The flows that have changed least lately: they wait the longest."""
    return flows.ListFlowsRequest(filter=wanted, order_by="updated", page_size=SHOWN)
