"""FlowService: starts flows, shows them, and lets a person step in."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from functools import partial

from google.protobuf.message import Message
from grpc.aio import ServicerContext

from handrail.analysis.diff.weakening import weakened
from handrail.coordinator.api.authorization import current_caller
from handrail.coordinator.api.divergence_lists import DivergenceLists
from handrail.coordinator.api.failure_lists import FailureLists
from handrail.coordinator.api.flow_lists import FlowLists
from handrail.coordinator.api.flow_lookup import Finder, Found, InArchive
from handrail.coordinator.api.flow_reading import FlowReader
from handrail.coordinator.api.paging import fitting, page_size, page_token, sequence_of
from handrail.coordinator.api.publish_event import Publishing
from handrail.coordinator.api.rpc_tracing import link_flow, link_flow_id
from handrail.coordinator.api.views import (
    act_view,
    compensation_plan,
    event_view,
    flow_view,
)
from handrail.coordinator.api.watch import Watcher
from handrail.coordinator.api.worker_fitness import waits_for_nobody
from handrail.coordinator.decide import operator_requests
from handrail.coordinator.decide.operator_requests import Judge
from handrail.coordinator.reconcile.operator_actions import Answered, OperatorActions
from handrail.coordinator.reconcile.repeated_calls import caller_request
from handrail.mesh.bus import Bus
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow
from handrail.mesh.fold import NO_VERSIONS, Versions
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.wire.envelope import from_timestamp
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.act_pb2 import PendingAct
from handrail.v1.event_pb2 import Kind
from handrail.v1.flow_service_pb2_grpc import FlowServiceServicer

_logger = logging.getLogger(__name__)

_Context = ServicerContext[object, object]
_DEFAULT_EVENTS = 100


class FlowService(FlowServiceServicer):
    """Finds the flow, has the right part do the work, and shows the flow in its state afterwards."""

    def __init__(
        self,
        *,
        finder: Finder,
        reader: FlowReader,
        catalog: Catalog,
        lists: FlowLists,
        divergences: DivergenceLists,
        failures: FailureLists,
        watcher: Watcher,
        publishing: Publishing,
        operator_actions: OperatorActions,
        bus: Bus,
    ) -> None:
        self._finder = finder
        self._reader = reader
        self._catalog = catalog
        self._lists = lists
        self._divergences = divergences
        self._failures = failures
        self._watcher = watcher
        self._publishing = publishing
        self._operator_actions = operator_actions
        self._bus = bus

    async def StartFlow(self, request: pb.StartFlowRequest, context: _Context) -> pb.StartFlowResponse:
        """Starts a flow with the caller as its requester."""
        started = await self._publishing.start(request, current_caller())
        link_flow_id(started.flow_id, started.span_id)
        return pb.StartFlowResponse(
            flow_id=started.flow_id,
            event_id=started.event_id,
            sequence=started.sequence,
            already_started=started.already_started,
            different_data=not started.same,
        )

    async def PublishEvent(self, request: pb.PublishEventRequest, context: _Context) -> pb.PublishEventResponse:
        """Publishes an outcome for the agent that the caller speaks for."""
        published = await self._publishing.publish(request, current_caller())
        return pb.PublishEventResponse(
            event_id=published.event_id,
            sequence=published.sequence,
            kind=Kind.Value(f"KIND_{published.kind.name}"),
            already_stored=published.already_stored,
        )

    async def GetFlow(self, request: pb.GetFlowRequest, context: _Context) -> pb.GetFlowResponse:
        """Returns a flow in its current state, or in an earlier one."""
        time = from_timestamp(request.as_of_time) if request.HasField("as_of_time") else None
        past = await self._reader.past(request.flow_id)
        if past.archived is not None and past.is_erased:
            return pb.GetFlowResponse(flow=past.archived.summary)
        flow = await self._reader.fold(past, sequence=request.as_of_sequence, time=time)
        link_flow(flow)
        as_it_stood = request.as_of_sequence or time is not None or past.archived is not None
        view = flow_view(flow, frozenset[str]() if as_it_stood else await self._unfit(flow))
        view.archived = past.archived is not None
        return pb.GetFlowResponse(flow=view)

    async def _unfit(self, flow: Flow) -> frozenset[str]:
        """Returns the agents that the flow waits for and that have no fitting worker. A hint: it may be empty."""
        try:
            return await waits_for_nobody(self._bus, flow)
        except HandrailError as error:
            _logger.warning("flow %s: can't tell whether a live worker fits: %s", flow.flow_id, error.text)
            return frozenset()

    async def ListFlowEvents(self, request: pb.ListFlowEventsRequest, context: _Context) -> pb.ListFlowEventsResponse:
        """Returns one page of a flow's events, in stream order."""
        listing = ("events", request.flow_id)
        after = sequence_of(request.page_token, *listing)
        past = await self._reader.past(request.flow_id)
        flow = await self._reader.fold(past)
        link_flow(flow)
        rest = [each for each in past.history.everything() if each.sequence > after]
        views = (event_view(each, flow.void.get(each.sequence)) for each in rest)
        page = fitting(views, page_size(request.page_size, _DEFAULT_EVENTS))
        cursor = page[-1].sequence if len(page) < len(rest) else 0
        return pb.ListFlowEventsResponse(
            events=page, next_page_token=page_token(cursor, *listing), archived=past.archived is not None
        )

    async def WatchFlow(self, request: pb.WatchFlowRequest, context: _Context) -> AsyncIterator[pb.WatchFlowResponse]:
        """Streams the flow's events as they are stored."""
        try:
            found = await self._finder.flow(request.flow_id)
            watch = self._watcher.watch(found, request.after_sequence)
        except InArchive as gone:
            watch = self._watcher.replay(await self._reader.archived(gone.archived), request.after_sequence)
        async with aclosing(watch) as responses:
            async for response in responses:
                yield response

    async def ListFlows(self, request: pb.ListFlowsRequest, context: _Context) -> pb.ListFlowsResponse:
        """Returns one page of flows."""
        return await self._lists.flows(request)

    async def CountFlows(self, request: pb.CountFlowsRequest, context: _Context) -> pb.CountFlowsResponse:
        """Counts flows by type and status."""
        return await self._lists.counts(request)

    async def CountFlowsByHour(
        self, request: pb.CountFlowsByHourRequest, context: _Context
    ) -> pb.CountFlowsByHourResponse:
        """Counts flows that began or failed, by type and hour."""
        return await self._lists.hours(request)

    async def ListDivergences(
        self, request: pb.ListDivergencesRequest, context: _Context
    ) -> pb.ListDivergencesResponse:
        """Returns one page of divergences, or their counts."""
        return await self._divergences.divergences(request)

    async def ListFailures(self, request: pb.ListFailuresRequest, context: _Context) -> pb.ListFailuresResponse:
        """Returns the most frequent failures."""
        return await self._failures.failures(request)

    async def PlanCompensation(
        self, request: pb.PlanCompensationRequest, context: _Context
    ) -> pb.PlanCompensationResponse:
        """Returns what CompensateFlow would do."""
        flow = await self._reader.load(request.flow_id)
        link_flow(flow)
        return compensation_plan(flow, request.to_step)

    async def CompensateFlow(self, request: pb.CompensateFlowRequest, context: _Context) -> pb.CompensateFlowResponse:
        """Halts a flow and undoes its effects."""
        found = await self._finder.flow(request.flow_id)
        judge = partial(
            operator_requests.compensation,
            reason=request.reason,
            to_step=request.to_step,
            etag=request.etag,
            run_again=request.run_again,
        )
        answered = await self._recorded(found, request, judge)
        return pb.CompensateFlowResponse(flow=flow_view(answered.flow), pending_act=pending_view(answered))

    async def CancelFlow(self, request: pb.CancelFlowRequest, context: _Context) -> pb.CancelFlowResponse:
        """Cancels a flow."""
        found = await self._finder.flow(request.flow_id)
        judge = partial(
            operator_requests.cancelling, reason=request.reason, keep_effects=request.keep_effects, etag=request.etag
        )
        answered = await self._recorded(found, request, judge)
        return pb.CancelFlowResponse(flow=flow_view(answered.flow), pending_act=pending_view(answered))

    async def RetryStep(self, request: pb.RetryStepRequest, context: _Context) -> pb.RetryStepResponse:
        """Runs a step again."""
        found = await self._finder.flow(request.flow_id)
        judge = partial(
            operator_requests.retrying,
            step=request.step,
            root=request.root,
            reason=request.reason,
            etag=request.etag,
            run_again=request.run_again,
        )
        answered = await self._recorded(found, request, judge)
        return pb.RetryStepResponse(flow=flow_view(answered.flow), pending_act=pending_view(answered))

    async def PlanMigration(self, request: pb.PlanMigrationRequest, context: _Context) -> pb.PlanMigrationResponse:
        """Returns one page of running flows, and whether each can move."""
        return await self._lists.migration(request)

    async def MigrateFlow(self, request: pb.MigrateFlowRequest, context: _Context) -> pb.MigrateFlowResponse:
        """Moves a flow to another version."""
        found = await self._finder.flow(request.flow_id)
        target = await self._catalog.template(found.flow_type, request.to_version)
        judge = partial(operator_requests.migrating, target=target, reason=request.reason, etag=request.etag)
        answered = await self._recorded(found, request, judge, {target.version: target})
        pending = pending_view(answered, weakened(answered.flow.template, target))
        return pb.MigrateFlowResponse(flow=flow_view(answered.flow), pending_act=pending)

    async def ResolveEscalation(
        self, request: pb.ResolveEscalationRequest, context: _Context
    ) -> pb.ResolveEscalationResponse:
        """Answers an open escalation."""
        found = await self._finder.flow(request.flow_id)
        judge = partial(
            operator_requests.answer,
            escalation_id=request.escalation_id,
            choice=request.choice,
            reason=request.reason,
            etag=request.etag,
            run_again=request.run_again,
        )
        answered = await self._recorded(found, request, judge)
        return pb.ResolveEscalationResponse(flow=flow_view(answered.flow), pending_act=pending_view(answered))

    async def _recorded(
        self, found: Found, request: Message, judge: Judge, versions: Versions = NO_VERSIONS
    ) -> Answered:
        """Records the caller's decision, links the call's span to the flow's trace, and returns the flow."""
        caller = current_caller()
        answered = await self._operator_actions.answer(
            found.flow_type,
            found.flow_id,
            judge,
            caller=caller,
            request=caller_request(request, caller),
            versions=versions,
        )
        link_flow(answered.flow)
        return answered


def pending_view(answered: Answered, warnings: Iterable[str] = ()) -> PendingAct | None:
    """Returns the act that waits for a second person; None if the call needed none."""
    pending = answered.pending
    return None if pending is None else act_view(answered.flow, pending, warnings=warnings)
