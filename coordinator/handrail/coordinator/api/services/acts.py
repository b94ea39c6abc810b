"""ActService: acts that need two persons. The confirmer is the verified caller: no request names one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from google.protobuf.message import Message
from grpc.aio import ServicerContext

from handrail.analysis.diff.weakening import weakened
from handrail.coordinator.api.act_lists import ActLists
from handrail.coordinator.api.authorization import current_caller
from handrail.coordinator.api.flow_lookup import Finder, Found, no_act
from handrail.coordinator.api.flow_reading import FlowReader
from handrail.coordinator.api.listing import DEFAULT_PAGE
from handrail.coordinator.api.paging import cursor_of, fitting, page_size, page_token
from handrail.coordinator.api.qualified_id import qualified
from handrail.coordinator.api.rpc_tracing import link_flow
from handrail.coordinator.api.template_acts import TemplateActDesk
from handrail.coordinator.api.views import act_view, flow_view
from handrail.coordinator.decide import two_persons
from handrail.coordinator.decide.operator_requests import Judge
from handrail.coordinator.reconcile.operator_actions import OperatorActions
from handrail.coordinator.reconcile.repeated_calls import caller_request
from handrail.mesh.flow import Flow
from handrail.mesh.flow.acts import PendingAct
from handrail.mesh.fold import NO_VERSIONS, Versions
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.template.persons import ActState
from handrail.mesh.wire.envelope import type_of
from handrail.v1 import act_pb2
from handrail.v1 import act_service_pb2 as pb
from handrail.v1.act_service_pb2_grpc import ActServiceServicer
from handrail.v1.decision_pb2 import FlowMigrated

_Context = ServicerContext[object, object]
_ON_TEMPLATES = "."
"""Begins the token of a page that begins with acts on templates: no other token has this character."""

_MIGRATED = FlowMigrated.DESCRIPTOR.full_name


class ActService(ActServiceServicer):
    """An act's id is that of the event that asked for it."""

    def __init__(
        self,
        *,
        finder: Finder,
        reader: FlowReader,
        catalog: Catalog,
        lists: ActLists,
        operator_actions: OperatorActions,
        desk: TemplateActDesk,
    ) -> None:
        self._desk = desk
        self._finder = finder
        self._reader = reader
        self._catalog = catalog
        self._lists = lists
        self._operator_actions = operator_actions

    async def ListActs(self, request: pb.ListActsRequest, context: _Context) -> pb.ListActsResponse:
        """One page: first the acts on templates and on the policy, then those on flows, each the oldest first."""
        now, size = datetime.now(UTC), page_size(request.page_size, DEFAULT_PAGE)
        every = await self._of_templates(request, now)
        rest = self._not_shown(request, every)
        first = fitting(rest, size)
        found = await self._lists.acts(_on_flows(request, size - len(first)), now)
        more = found.acts or found.next_page_token
        if len(first) < len(rest) or (len(first) == size and more):
            token = page_token(first[-1].act_id, *_listing(request))
            found = found._replace(acts=[], next_page_token=f"{_ON_TEMPLATES}{token}")
        answer = pb.ListActsResponse(
            acts=[*first, *found.acts], next_page_token=found.next_page_token, as_of=found.as_of, total=found.total
        )
        if found.total is not None:
            answer.total.items += len(every)
        return answer

    async def GetAct(self, request: pb.GetActRequest, context: _Context) -> pb.GetActResponse:
        """One act, with what it weakens; ACT_NOT_FOUND."""
        act = await self._desk.find(request.act_id)
        if act is not None:
            return pb.GetActResponse(act=self._desk.view(act, datetime.now(UTC)))
        flow, act_id = await self._reader.with_act(request.act_id)
        link_flow(flow)
        return pb.GetActResponse(act=await self._view(flow, act_id, now=datetime.now(UTC)))

    async def ConfirmAct(self, request: pb.ConfirmActRequest, context: _Context) -> pb.ConfirmActResponse:
        """Have the act done, with the caller as its second person, or by the caller alone who breaks the glass."""
        act = await self._desk.find(request.act_id)
        if act is not None:
            call = caller_request(request, current_caller())
            return await self._desk.confirm(act, request, call, datetime.now(UTC))
        found = await self._finder.act(request.act_id)
        flow = await self._finder.load_found(found)
        judge = partial(
            two_persons.confirming,
            act_id=found.own_id,
            digest=request.digest,
            break_glass_reason=request.break_glass_reason,
            now=datetime.now(UTC),
        )
        flow = await self._recorded(found, request, judge, await self._versions(flow.acts.get(found.own_id), flow))
        return pb.ConfirmActResponse(act=await self._view(flow, found.own_id), flow=flow_view(flow))

    async def WithdrawAct(self, request: pb.WithdrawActRequest, context: _Context) -> pb.WithdrawActResponse:
        """End the act undone."""
        act = await self._desk.find(request.act_id)
        if act is not None:
            call = caller_request(request, current_caller())
            return await self._desk.withdraw(act, request, call, datetime.now(UTC))
        found = await self._finder.act(request.act_id)
        judge = partial(two_persons.withdrawing, act_id=found.own_id, reason=request.reason)
        flow = await self._recorded(found, request, judge, NO_VERSIONS)
        return pb.WithdrawActResponse(act=await self._view(flow, found.own_id))

    async def GetPolicy(self, request: pb.GetPolicyRequest, context: _Context) -> pb.GetPolicyResponse:
        """What nobody does to templates alone."""
        return pb.GetPolicyResponse(policy=await self._desk.policy())

    async def SetPolicy(self, request: pb.SetPolicyRequest, context: _Context) -> pb.SetPolicyResponse:
        """Change it, or ask another person to confirm the change."""
        return await self._desk.set_policy(request, caller_request(request, current_caller()), datetime.now(UTC))

    async def _of_templates(self, request: pb.ListActsRequest, now: datetime) -> list[act_pb2.PendingAct]:
        await self._catalog.refresh_from_leader()
        return list(self._desk.listed(request.flow_type, include_closed=request.include_closed, now=now))

    def _not_shown(
        self, request: pb.ListActsRequest, every: Sequence[act_pb2.PendingAct]
    ) -> Sequence[act_pb2.PendingAct]:
        """Returns those of these acts on templates that come after the page token. Raises BAD_PAGE_TOKEN."""
        if not request.page_token:
            return every
        if not request.page_token.startswith(_ON_TEMPLATES):
            return []
        places = {act_id: place for place, act_id in enumerate(self._catalog.decisions.acts)}
        last = cursor_of(request.page_token.removeprefix(_ON_TEMPLATES), *_listing(request))
        return [act for act in every if places[act.act_id] > places.get(last, -1)]

    async def _recorded(self, found: Found, request: Message, judge: Judge, versions: Versions) -> Flow:
        caller = current_caller()
        flow = await self._operator_actions.record(
            found.flow_type,
            found.flow_id,
            judge,
            caller=caller,
            request=caller_request(request, caller),
            versions=versions,
        )
        link_flow(flow)
        return flow

    async def _versions(self, act: PendingAct | None, flow: Flow) -> Versions:
        """The version that the act moves the flow to; none for another act."""
        if act is None or type_of(act.data) != _MIGRATED:
            return NO_VERSIONS
        version = FlowMigrated.FromString(act.data.value).to_version
        return {version: await self._catalog.template(flow.flow_type, version)}

    async def _view(self, flow: Flow, act_id: str, *, now: datetime | None = None) -> act_pb2.PendingAct:
        act = flow.acts.get(act_id)
        if act is None:
            raise no_act(qualified(flow, act_id))
        warnings = [
            text
            for target in (await self._versions(act, flow)).values()
            if act.state is ActState.PENDING
            for text in weakened(flow.template, target)
        ]
        return act_view(flow, act, now=now, warnings=warnings)


def _listing(request: pb.ListActsRequest) -> tuple[object, ...]:
    """What the token of a page of acts on templates is bound to."""
    return "acts on templates", request.flow_type, request.include_closed


def _on_flows(request: pb.ListActsRequest, room: int) -> pb.ListActsRequest:
    """Returns the request for acts on flows where a page has room for so many: without any, it finds out if there are
    some.
    """
    asked = pb.ListActsRequest()
    asked.CopyFrom(request)
    asked.page_size = max(room, 1)
    if request.page_token.startswith(_ON_TEMPLATES):
        asked.page_token = ""
    return asked
