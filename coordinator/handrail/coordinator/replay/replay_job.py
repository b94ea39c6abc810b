"""What-if on recorded flows: reads them from the stream, replays them, and streams the results as they arrive.

It only reads. Each replica runs one replay at a time, because a replay takes as many cores as it is given.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta

from handrail.analysis.replay.replayer import Span
from handrail.analysis.replay.tally import Tally
from handrail.coordinator.lists.bulk_read import scan
from handrail.coordinator.reconcile.drain import Drain
from handrail.coordinator.replay.chosen import Choose, chosen
from handrail.coordinator.replay.flow_assembly import Flow, Gathering
from handrail.coordinator.replay.processes import Workers, workers
from handrail.coordinator.workers.pool import WorkerPool
from handrail.coordinator.workers.templates import prepared_template
from handrail.mesh.bus import NatsBus, RawMessage
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import from_timestamp
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.template_pb2 import StoredTemplate
from handrail.v1.template_service_pb2 import ReplayDifference, ReplayPolicyRequest, ReplayPolicyResponse, ReplayProgress

LONGEST = timedelta(minutes=30)
"""A replay is cancelled after this time; it covers some ten million flows."""

_DIFFERENCES = 100
_BATCH = 200
"""Flows per task of a process."""
_PROGRESS = 0.2

Responses = AsyncGenerator[ReplayPolicyResponse, None]


class Replays:
    """Runs replays, one after the other."""

    def __init__(self, bus: NatsBus, catalog: Catalog, drain: Drain, workers: WorkerPool) -> None:
        self._bus = bus
        self._catalog = catalog
        self._drain = drain
        self._workers = workers
        self._turn = asyncio.Lock()

    async def asked(self, request: ReplayPolicyRequest, *, caller: str, choose: Choose | None = None) -> Responses:
        """Answers a request of this caller; raises TEMPLATE_REFUSED if its template fails the type-check.

        A template without contracts is read with those stored with the active version, or else with the newest one.
        `choose` names the flows; without it, all of the time span are replayed.
        """
        descriptors = request.descriptors or await self._descriptors(request.template.name)
        _, prepared = await prepared_template(self._workers, request.template, descriptors, caller=caller)
        span = Span(
            from_timestamp(request.since) if request.HasField("since") else None,
            from_timestamp(request.until) if request.HasField("until") else None,
        )
        changed = Template.compile(request.template, Contracts.from_descriptor_set(prepared.descriptors))
        limit = request.max_differences or _DIFFERENCES
        async with aclosing(self.replay(changed, span, limit=limit, choose=choose)) as responses:
            async for response in responses:
                yield response

    async def _descriptors(self, name: str) -> bytes:
        await self._catalog.refresh()
        versions = self._catalog.versions(name)
        if not versions:
            raise _unknown(name)
        active = self._catalog.get(name, self._catalog.active_version(name))
        return (active or versions[-1]).contracts.descriptor_set

    async def replay(self, changed: Template, span: Span, *, limit: int, choose: Choose | None = None) -> Responses:
        """Yields progress now and then, at most `limit` differences, and the summary at the end.

        It takes the flows that the stream has when the replay begins. Raises FLOW_TYPE_NOT_FOUND if no version of the
        type is stored, DRAINING, or DEADLINE_EXCEEDED after half an hour.
        """
        yield ReplayPolicyResponse(progress=ReplayProgress())
        async with self._turn:
            # The end is read before the versions: every flow read was then recorded under a known version.
            newest = await self._bus.last_on_leader(FLOW, f"flow.{changed.name}.>")
            await self._catalog.refresh()
            versions = [_stored(template) for template in self._catalog.versions(changed.name)]
            if not versions:
                raise _unknown(changed.name)
            tally = Tally()
            if newest is not None and (span.since is None or span.since <= newest.time):
                with workers(_stored(changed), versions, span) as processes:
                    run = _Run(self._bus, changed.name, span, newest, limit, processes, self._drain)
                    flows = run.scanned() if choose is None else run.chosen(choose)
                    async for response in run.responses(flows):
                        yield response
                    tally = run.tally
            yield ReplayPolicyResponse(summary=tally.summary(changed))


class _Run:
    """One replay in progress: what was read and the results so far."""

    def __init__(
        self, bus: NatsBus, flow_type: str, span: Span, newest: RawMessage, limit: int, processes: Workers, drain: Drain
    ) -> None:
        self._bus = bus
        self._flow_type = flow_type
        self._span = span
        self._up_to = newest.sequence
        self._left = limit
        self._processes = processes
        self._drain = drain
        self._gathering = Gathering(bus, flow_type, newest=newest)
        self._working: deque[asyncio.Task[tuple[Tally, list[bytes]]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._share = 0.0
        self._read = 0
        self._told_at = 0.0
        self._ends_at = self._loop.time() + LONGEST.total_seconds()
        self.tally = Tally()

    async def responses(self, read: AsyncGenerator[list[Flow], None]) -> Responses:
        """Yields progress and differences until all flows that are `read` are replayed."""
        try:
            async with aclosing(read) as batches:
                async for flows in batches:
                    self._may_go_on()
                    async for response in self._replay(flows):
                        yield response
                    if self._loop.time() - self._told_at > _PROGRESS:
                        yield self._progress()
            while self._working:
                self._may_go_on()
                for response in await self._oldest():
                    yield response
            self._share = 1.0
            yield self._progress()
        finally:
            for task in self._working:
                task.cancel()

    async def scanned(self) -> AsyncGenerator[list[Flow], None]:
        """Yields the flows of the time span, which a scan of the stream finds."""
        first = 0
        async with scan(
            self._bus, FLOW, f"flow.{self._flow_type}.>", since=self._span.since, up_to=self._up_to
        ) as reading:
            async for page in reading.pages():
                self._read += len(page)
                first = first or page[0].sequence
                self._share = (page[-1].sequence - first + 1) / max(1, self._up_to - first + 1)
                await self._gathering.take(page, is_first_ever=self._span.since is None)
                yield await self._gathering.overflow()
        yield list(self._gathering.rest())

    async def chosen(self, choose: Choose) -> AsyncGenerator[list[Flow], None]:
        """Yields the flows that the index chooses."""
        async for some in chosen(self._gathering, choose):
            self._read += sum(map(len, some.flows))
            self._share = some.share
            yield some.flows

    async def _replay(self, flows: list[Flow]) -> Responses:
        """Hands flows to the processes and yields results. Hands out only as many as keep the processes busy."""
        for start in range(0, len(flows), _BATCH):
            batch = flows[start : start + _BATCH]
            self._working.append(self._loop.create_task(self._processes.replay(batch, self._left)))
            if len(self._working) > 2 * self._processes.number:
                self._may_go_on()
                for response in await self._oldest():
                    yield response
                if self._loop.time() - self._told_at > _PROGRESS:
                    yield self._progress()

    async def _oldest(self) -> list[ReplayPolicyResponse]:
        tally, differences = await self._working.popleft()
        self.tally.add(tally)
        told = differences[: self._left]
        self._left -= len(told)
        return [ReplayPolicyResponse(difference=ReplayDifference.FromString(each)) for each in told]

    def _progress(self) -> ReplayPolicyResponse:
        self._told_at = self._loop.time()
        progress = ReplayProgress(flows=self.tally.flows, messages=self._read, share=min(1.0, self._share))
        return ReplayPolicyResponse(progress=progress)

    def _may_go_on(self) -> None:
        if self._drain.begun:
            raise HandrailError(
                ErrorReason.ERROR_REASON_DRAINING, "this server is draining; start the replay again on another one"
            )
        if self._loop.time() > self._ends_at:
            raise HandrailError(
                ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED,
                f"the replay is not done after {LONGEST.total_seconds() / 60:.0f} min; choose a shorter time span",
            )


def _stored(template: Template) -> StoredTemplate:
    return StoredTemplate(template=template.proto, descriptors=template.descriptor_set)


def _unknown(flow_type: str) -> HandrailError:
    return HandrailError(
        ErrorReason.ERROR_REASON_FLOW_TYPE_NOT_FOUND,
        f"no version of flow type {flow_type} is stored: there is nothing to replay",
        flow_type=flow_type,
    )
