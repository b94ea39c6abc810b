"""GetTemplateUsage: which versions flows run on, until when, and which agents take part."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from handrail.mesh.bus.delivery import Delivery
from handrail.mesh.streams import FLOW, workers
from handrail.mesh.streams.durables import agent_durable
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import from_timestamp, pack
from handrail.v1 import flow_service_pb2, template_service_pb2
from handrail.v1.template_pb2 import ExpiryAction, RejectAction
from handrail.v1.template_service_pb2 import UnboundedReason
from handrail.v1.worker_pb2 import WorkerState, WorkerVersion
from tests.support import flows
from tests.support.api import Api, bearer, refused
from tests.support.waiting import eventually, until


def usage(api: Api, **request: Any) -> Any:
    return api.call(
        "TemplateService/GetTemplateUsage",
        template_service_pb2.GetTemplateUsageRequest(**request, scan=True),
        template_service_pb2.GetTemplateUsageResponse,
        metadata=bearer(api.token("vera")),
    )


async def put(api: Api, version: int, *, gated: bool = False) -> None:
    template = flows.template(version=version, gated=gated)
    for gate in template.proto.gates:
        gate.on_reject, gate.on_expiry = RejectAction.REJECT_ACTION_COMPENSATE, ExpiryAction.EXPIRY_ACTION_WAIT
        gate.ClearField("expires_after")
    request = template_service_pb2.PutTemplateRequest(template=template.proto, descriptors=template.descriptor_set)
    metadata = bearer(api.token("olga", "operator"))
    await api.call("TemplateService/PutTemplate", request, template_service_pb2.PutTemplateResponse, metadata=metadata)
    await api.call(
        "TemplateService/ActivateTemplate",
        template_service_pb2.ActivateTemplateRequest(name="refund", version=version),
        template_service_pb2.ActivateTemplateResponse,
        metadata=metadata,
    )


async def start(api: Api, key: str) -> str:
    request = flow_service_pb2.StartFlowRequest(flow_type="refund", key=key, data=pack(flows.received()))
    metadata = bearer(api.token("olga", "operator"))
    answer = await api.call("FlowService/StartFlow", request, flow_service_pb2.StartFlowResponse, metadata=metadata)
    flow_id: str = answer.flow_id
    return flow_id


async def publish(api: Api, flow_id: str, agent: str, step: str, root: str, message: Any) -> str:
    request = flow_service_pb2.PublishEventRequest(
        flow_type="refund", flow_id=flow_id, step=step, root=root, attempt=1, output_total=1, data=pack(message)
    )
    metadata = bearer(api.token(agent, agent=agent))
    answer = await api.call(
        "FlowService/PublishEvent", request, flow_service_pb2.PublishEventResponse, metadata=metadata
    )
    event_id: str = answer.event_id
    return event_id


async def test_running_flows_are_counted_by_the_version_they_began_with(api: Api) -> None:
    await put(api, 1)
    done, *_ = [await start(api, f"old-{number}") for number in range(3)]
    await put(api, 2)
    await start(api, "new")
    enriched = await publish(api, done, "enrichment", "enrich", ids.start_id(done), flows.enrichment())
    await publish(api, done, "notification", "notify", enriched, flows.told())
    found = await usage(api)
    assert [(v.version, v.active, v.running_flows) for v in found.versions] == [(1, False, 2), (2, True, 1)]
    old = found.versions[0]
    lasts = from_timestamp(old.latest_deadline) - from_timestamp(old.oldest_start_time)
    assert timedelta(hours=1) <= lasts < timedelta(hours=1, minutes=1)
    assert (old.deadline.seconds, old.unbounded_flows, found.flows_examined) == (3600, 0, 4)


async def test_a_flow_that_nothing_ends_is_named_with_the_reason(api: Api) -> None:
    await put(api, 1, gated=True)
    flow_id = await start(api, "waits")
    await publish(api, flow_id, "enrichment", "enrich", ids.start_id(flow_id), flows.enrichment())

    async def examples() -> list[tuple[str, UnboundedReason.ValueType]]:
        (version,) = (await usage(api, name="refund")).versions
        return [(each.flow_id, each.reason) for each in version.examples]

    found = await eventually(examples)  # the coordinator has asked for the approval
    assert found == [(flow_id, UnboundedReason.UNBOUNDED_REASON_WAITING_APPROVAL)]


async def test_pages_add_up(api: Api) -> None:
    await put(api, 1)
    for number in range(5):
        await start(api, f"flow-{number}")
    counts: list[int] = []
    token = ""
    while not counts or token:
        page = await usage(api, page_size=2, page_token=token)
        assert bool(page.agents) == (not token)  # the agents come once
        counts.append(page.versions[0].running_flows)
        token = page.next_page_token
    assert sum(counts) == 5
    assert max(counts) == 2
    refusal = await refused(usage(api, name="refund", page_token="nonsense"))
    assert refusal.reason == "BAD_PAGE_TOKEN"


async def test_the_agents_durables_show_their_backlog_and_who_waits_for_work(api: Api) -> None:
    await put(api, 1)
    await start(api, "one")
    enrichment, notification = (await usage(api)).agents
    assert (enrichment.agent, enrichment.durable) == ("enrichment", "agent-enrichment")
    assert f"flow.refund.*.event.*.*.{flows.RECEIVED}" in enrichment.filter_subjects
    assert (enrichment.pending, enrichment.waiting_pulls, notification.pending) == (1, 0, 0)
    pull = await api.replica.bus.pull(
        FLOW, agent_durable("notification"), in_flight=5, on_delivery=lambda delivery: None
    )

    async def waiting() -> bool:
        return bool((await usage(api)).agents[1].waiting_pulls)

    await eventually(waiting)
    await pull.stop()


async def test_an_agent_shows_since_when_its_oldest_message_waits_until_it_is_settled(api: Api) -> None:
    await put(api, 1)
    assert not (await usage(api)).agents[0].HasField("oldest_unsettled_time")
    flow_id = await start(api, "one")
    await start(api, "two")
    first = await api.replica.store.load("refund", flow_id)

    async def oldest() -> datetime | None:
        agent = (await usage(api)).agents[0]
        return from_timestamp(agent.oldest_unsettled_time) if agent.HasField("oldest_unsettled_time") else None

    assert await eventually(oldest) == first.start_time
    held: list[Delivery] = []
    pull = await api.replica.bus.pull(FLOW, agent_durable("enrichment"), in_flight=5, on_delivery=held.append)
    await until(lambda: len(held) == 2)
    assert await oldest() == first.start_time, "it is in hand, which is not settled"
    held[0].ack()
    await eventually(oldest, lambda time: time == held[1].time)
    held[1].ack()
    await eventually(oldest, lambda time: time is None)
    await pull.stop()


async def test_an_agent_shows_what_its_live_workers_say(api: Api) -> None:
    await put(api, 1)
    said = [WorkerVersion(flow_type="refund", version=1, problem="no handler")]
    bus = api.replica.bus
    await workers.announce(bus, "enrichment", "a" * 32, WorkerState(versions=said, stuck=["async handler enrich"]))

    async def live() -> int:
        return int((await usage(api)).agents[0].workers.live)

    await eventually(live)
    enrichment, notification = (await usage(api)).agents
    (fit,) = enrichment.workers.fits
    assert (fit.version, fit.fitting, fit.unfit, fit.problem) == (1, 0, 1, "no handler")
    assert list(enrichment.workers.stuck) == ["async handler enrich"]
    assert (notification.workers.live, len(notification.workers.fits)) == (0, 1)
