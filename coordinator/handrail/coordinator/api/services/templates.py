"""TemplateService: checks, stores and activates flow templates."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime

from grpc.aio import ServicerContext

from handrail.coordinator.api import authorization, worker_fitness
from handrail.coordinator.api.authorization import current_caller
from handrail.coordinator.api.paging import cursor_of, fitting, page_size, page_token, sequence_of
from handrail.coordinator.api.replay_choice import choice
from handrail.coordinator.api.template_acts import TemplateActDesk
from handrail.coordinator.api.template_lookup import TemplateFinder
from handrail.coordinator.api.usage_lists import UsageLists
from handrail.coordinator.lists.index import Index
from handrail.coordinator.reconcile.activation import Activator
from handrail.coordinator.reconcile.repeated_calls import caller_request
from handrail.coordinator.replay.replay_job import Replays
from handrail.coordinator.workers.pool import WorkerPool
from handrail.coordinator.workers.templates import prepared_template
from handrail.mesh.bus import Bus
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.template import Template
from handrail.mesh.template.activations import logged
from handrail.mesh.wire.envelope import timestamp
from handrail.v1 import template_service_pb2 as pb
from handrail.v1.template_pb2 import Activation, StoredTemplate
from handrail.v1.template_service_pb2_grpc import TemplateServiceServicer

_DEFAULT_PAGE = 50
_Context = ServicerContext[object, object]


class TemplateService(TemplateServiceServicer):
    """Puts the flow type-check before the catalog."""

    def __init__(
        self,
        bus: Bus,
        catalog: Catalog,
        usage: UsageLists,
        index: Index,
        replays: Replays,
        *,
        activator: Activator,
        desk: TemplateActDesk,
        workers: WorkerPool,
    ) -> None:
        self._activator = activator
        self._desk = desk
        self._bus = bus
        self._catalog = catalog
        self._templates = TemplateFinder(catalog)
        self._usage = usage
        self._index = index
        self._replays = replays
        self._workers = workers

    async def CheckTemplate(self, request: pb.CheckTemplateRequest, context: _Context) -> pb.CheckTemplateResponse:
        """Returns the findings, errors first."""
        (response,) = await self._workers.run("check", request.SerializeToString(), caller=current_caller().subject)
        return pb.CheckTemplateResponse.FromString(response)

    async def PutTemplate(self, request: pb.PutTemplateRequest, context: _Context) -> pb.PutTemplateResponse:
        """Checks and stores a version; raises TEMPLATE_REFUSED or TEMPLATE_EXISTS."""
        caller = current_caller()
        findings, prepared = await prepared_template(
            self._workers, request.template, request.descriptors, caller=caller.subject
        )
        stored = StoredTemplate(
            template=request.template,
            descriptors=prepared.descriptors,
            digest=prepared.digest,
            put_by=caller.subject,
            put_time=timestamp(datetime.now(UTC)),
            request=caller_request(request, caller),
        )
        is_new = await self._catalog.put(stored)
        return pb.PutTemplateResponse(digest=prepared.digest, findings=findings, already_stored=not is_new)

    async def ActivateTemplate(
        self, request: pb.ActivateTemplateRequest, context: _Context
    ) -> pb.ActivateTemplateResponse:
        """Updates the durables, then records the activation; raises TEMPLATE_NOT_FOUND, FLOW_BUSY during another one,
        and WORKERS_DO_NOT_FIT unless forced. If the policy wants two persons, the first one only asks for it."""
        template = await self._templates.version(request.name, request.version)
        caller, now = current_caller(), datetime.now(UTC)
        asked = caller_request(request, caller)
        wanted = Activation(version=request.version, by=caller.subject, reason=request.reason, force=request.force)
        await self._catalog.refresh_from_leader()
        unfit = await worker_fitness.unfit_agents(self._bus, template)
        if not request.force and not self._catalog.is_repeated(asked):
            worker_fitness.require_fit(template, unfit)
        pending = None
        if self._catalog.active_version(request.name) != request.version or self._catalog.is_repeated(asked):
            pending = await self._desk.acts.ask(request.name, wanted, request=asked, now=now)
        if pending is not None:
            return pb.ActivateTemplateResponse(pending_act=self._desk.view(pending), unfit_agents=unfit)
        answer = await self._activator.activate(template, wanted, now=now, request=asked)
        answer.unfit_agents.extend(unfit)
        return answer

    async def GetTemplate(self, request: pb.GetTemplateRequest, context: _Context) -> pb.GetTemplateResponse:
        """Returns a version, or the active one; raises TEMPLATE_NOT_FOUND or FLOW_TYPE_NOT_FOUND."""
        await self._catalog.refresh_from_leader()
        version = request.version or (await self._templates.active(request.name)).version
        await self._templates.version(request.name, version)
        active = version == self._catalog.active_version(request.name)
        return pb.GetTemplateResponse(stored=self._catalog.stored(request.name, version), active=active)

    async def ListTemplates(self, request: pb.ListTemplatesRequest, context: _Context) -> pb.ListTemplatesResponse:
        """Returns one page, by name and version."""
        listing = ("templates", request.name)
        cursor = cursor_of(request.page_token, *listing)
        await self._catalog.refresh_from_leader()
        rest = [template for template in self._listed(request.name) if _key(template) > cursor]
        page = fitting(map(self._summary, rest), page_size(request.page_size, _DEFAULT_PAGE))
        last = _key(rest[len(page) - 1]) if len(page) < len(rest) else ""
        return pb.ListTemplatesResponse(templates=page, next_page_token=page_token(last, *listing))

    async def ListActivations(
        self, request: pb.ListActivationsRequest, context: _Context
    ) -> pb.ListActivationsResponse:
        """Returns one page, newest first; raises TEMPLATE_NOT_FOUND if no version of that name is stored."""
        listing = ("activations", request.name)
        below = sequence_of(request.page_token, *listing)
        await self._templates.any_version(request.name)
        log = [each for each in logged(self._catalog.activations(request.name)) if not below or each.number < below]
        page = fitting(reversed(log), page_size(request.page_size, _DEFAULT_PAGE))
        last = page[-1].number if len(page) < len(log) else 0
        return pb.ListActivationsResponse(activations=page, next_page_token=page_token(last, *listing))

    async def GetTemplateUsage(
        self, request: pb.GetTemplateUsageRequest, context: _Context
    ) -> pb.GetTemplateUsageResponse:
        """Counts the running flows of each version; a scan does so on one page of flows."""
        return await self._usage.usage(request)

    async def ReplayPolicy(
        self, request: pb.ReplayPolicyRequest, context: _Context
    ) -> AsyncGenerator[pb.ReplayPolicyResponse, None]:
        """Checks the template and tries it on recorded flows; raises TEMPLATE_REFUSED or FLOW_TYPE_NOT_FOUND."""
        choose = await choice(self._index, self._catalog, request)
        async with aclosing(self._replays.asked(request, caller=current_caller().subject, choose=choose)) as responses:
            async for response in responses:
                yield response

    def _listed(self, name: str) -> Sequence[Template]:
        """Returns the known versions that the caller may read: of this flow type, or all if the name is empty."""
        return [each for each in self._catalog.all() if name in ("", each.name) and authorization.lists(each.name)]

    def _summary(self, template: Template) -> pb.TemplateSummary:
        stored = self._catalog.stored(template.name, template.version) or StoredTemplate()
        return pb.TemplateSummary(
            name=template.name,
            version=template.version,
            active=template.version == self._catalog.active_version(template.name),
            digest=stored.digest,
            put_by=stored.put_by,
        )


def _key(template: Template) -> str:
    """Orders templates by name and version, as text."""
    return f"{template.name} {template.version:010d}"
