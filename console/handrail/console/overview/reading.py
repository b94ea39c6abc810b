"""Asks for what the overview shows: all at once, a few rows of each list."""

from __future__ import annotations

from asyncio import create_task, gather
from collections.abc import Mapping
from dataclasses import dataclass

from handrail.console.agents.page import LATELY, NO_FLOW
from handrail.console.overview.sparkline import HOURS
from handrail.console.overview.tables import STATUSES
from handrail.console.web.asking import Part, part
from handrail.console.web.console import Console, now
from handrail.console.web.sessions import Session
from handrail.mesh.wire.envelope import timestamp
from handrail.v1 import act_service_pb2 as acts
from handrail.v1 import flow_service_pb2 as flows
from handrail.v1 import quarantine_service_pb2 as quarantine
from handrail.v1 import template_service_pb2 as templates
from handrail.v1.decision_pb2 import FlowStatus

STUCK = "stuck"
WAITING = "waiting"
OVERDUE = "overdue NOT stuck NOT waiting"
"""Flows that are late and that nobody was asked about yet."""

COUNTED = " OR ".join(f"status = {FlowStatus.Name(each).removeprefix('FLOW_STATUS_')}" for each in STATUSES)
"""Flows that are counted: however many are completed, that takes no longer."""

SHOWN = 10
"""Of each kind, so many of the oldest are read: the oldest of all are among them."""


FAILURES = 6
"""So many of the most frequent failures are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The parts of the overview."""

    stuck: Part[flows.ListFlowsResponse]
    overdue: Part[flows.ListFlowsResponse]
    waiting: Part[flows.ListFlowsResponse]
    acts: Part[acts.ListActsResponse]
    quarantined: Part[quarantine.ListQuarantinedResponse]
    counts: Part[flows.CountFlowsResponse]
    hours: Part[flows.CountFlowsByHourResponse]
    failures: Part[flows.ListFailuresResponse]
    usage: Part[templates.GetTemplateUsageResponse]
    health: Part[Mapping[str, bool]]


async def read(console: Console, session: Session) -> Reading:
    """Reads the overview of this person. Raises CallFailed if the token is refused."""
    to, token = console.coordinator, session.token
    held = quarantine.ListQuarantinedRequest(page_size=SHOWN)
    failed = flows.ListFailuresRequest(since=timestamp(now() - LATELY), limit=FAILURES)
    lately = flows.CountFlowsByHourRequest(hours=HOURS)
    used = templates.GetTemplateUsageRequest(filter=NO_FLOW)
    calls = (
        create_task(part(to.call(to.flows.ListFlows, _oldest(STUCK), token=token))),
        create_task(part(to.call(to.flows.ListFlows, _oldest(OVERDUE), token=token))),
        create_task(part(to.call(to.flows.ListFlows, _oldest(WAITING), token=token))),
        create_task(part(to.call(to.acts.ListActs, acts.ListActsRequest(page_size=SHOWN), token=token))),
        create_task(part(to.call(to.quarantine.ListQuarantined, held, token=token))),
        create_task(part(to.call(to.flows.CountFlows, flows.CountFlowsRequest(filter=COUNTED), token=token))),
        create_task(part(to.call(to.flows.CountFlowsByHour, lately, token=token))),
        create_task(part(to.call(to.flows.ListFailures, failed, token=token))),
        create_task(part(to.call(to.templates.GetTemplateUsage, used, token=token))),
        create_task(part(to.health(token=token))),
    )
    await gather(*calls)
    stuck, overdue, waiting, wanted, broken, counts, hours, failures, usage, health = calls
    await _add_quarantines(console, session, broken.result().answer, usage.result().answer)
    return Reading(
        stuck=stuck.result(),
        overdue=overdue.result(),
        waiting=waiting.result(),
        acts=wanted.result(),
        quarantined=broken.result(),
        counts=counts.result(),
        hours=hours.result(),
        failures=failures.result(),
        usage=usage.result(),
        health=health.result(),
    )


async def _add_quarantines(
    console: Console,
    session: Session,
    found: quarantine.ListQuarantinedResponse | None,
    usage: templates.GetTemplateUsageResponse | None,
) -> None:
    """Adds the oldest message of each agent that the list, which is sorted by agent, did not come to."""
    if found is None or usage is None or not found.next_page_token:
        return
    to, seen = console.coordinator, {each.agent for each in found.messages}
    wanted = [
        quarantine.ListQuarantinedRequest(agent=each.agent, page_size=1)
        for each in usage.agents
        if each.agent not in seen
    ]
    method = to.quarantine.ListQuarantined
    for more in await gather(*(part(to.call(method, each, token=session.token)) for each in wanted)):
        found.messages.extend(more.answer.messages if more.answer else ())


def _oldest(wanted: str) -> flows.ListFlowsRequest:
    """The flows that have changed least lately: they wait the longest."""
    return flows.ListFlowsRequest(filter=wanted, order_by="updated", page_size=SHOWN)
