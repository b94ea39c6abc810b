"""IndexService: reads each answer from one state of the index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

import grpc.aio
from google.protobuf.message import Message
from sqlalchemy import ColumnElement, Connection

from handrail.index.v1 import index_service_pb2 as pb
from handrail.index.v1.index_service_pb2_grpc import IndexServiceServicer
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import ContractViolation
from handrail.mesh.wire.envelope import from_timestamp
from handrail.v1.flow_service_pb2 import DivergenceCount, Expectation, FlowHour
from handrail.v1.listing_pb2 import AsOf
from handrail.visibility.index.database import Position
from handrail.visibility.serve.acts import act_rows, acts
from handrail.visibility.serve.approvals import approval_rows, approvals
from handrail.visibility.serve.archived import ArchivedFlows
from handrail.visibility.serve.counts import failure_counts, flow_counts, hour_counts, status_counts
from handrail.visibility.serve.divergences import divergence_counts, divergence_rows, divergences
from handrail.visibility.serve.expected import expected
from handrail.visibility.serve.flows import FLOWS, flow_rows
from handrail.visibility.serve.head import Head, as_of
from handrail.visibility.serve.listing import Found, Kind, page
from handrail.visibility.serve.open_flows import open_flows
from handrail.visibility.serve.selection import selected, tree_of
from handrail.visibility.serve.snapshot import Question, Snapshots

Context = grpc.aio.ServicerContext[object, object]

_PATIENCE = timedelta(seconds=10)
_MARGIN = 0.8
"""The database gets this part of the time that the caller waits, so that the answer still comes in time."""

Answer = TypeVar("Answer")


class _Asking(Protocol):
    """A request for counts."""

    @property
    def scope(self) -> pb.Scope: ...

    @property
    def filters(self) -> Iterable[str]: ...


class IndexService(IndexServiceServicer):
    """Answers are read in threads; how far FLOW is ahead is asked before."""

    def __init__(
        self, snapshots: Snapshots, head: Head, readings: Snapshots, sweeps: Snapshots, archived: ArchivedFlows
    ) -> None:
        self._snapshots = snapshots
        self._head = head
        self._readings = readings
        self._sweeps = sweeps
        self._archived = archived
        self._contracts = Contracts.from_descriptor_set(b"")

    async def ListFlows(self, request: pb.ListFlowsRequest, context: Context) -> pb.ListFlowsResponse:
        """Returns a page of flows."""

        def read(connection: Connection, position: Position) -> tuple[Found, Mapping[int, Sequence[Expectation]]]:
            found = page(connection, position, FLOWS, request.query)
            return found, expected(connection, found.rows)

        (found, waits), covered = await self._asked(request, context, read)
        return pb.ListFlowsResponse(rows=flow_rows(found, waits), page=_ending(found, covered))

    async def ListApprovals(self, request: pb.ListApprovalsRequest, context: Context) -> pb.ListApprovalsResponse:
        """Returns a page of approvals."""
        kind = approvals(include_closed=request.include_closed)
        found, ending = await self._page(request, context, kind, request.query)
        return pb.ListApprovalsResponse(rows=approval_rows(found), page=ending)

    async def ListActs(self, request: pb.ListActsRequest, context: Context) -> pb.ListActsResponse:
        """Returns a page of acts."""
        now = datetime.now(UTC)
        kind = acts(include_closed=request.include_closed, now=now)
        found, ending = await self._page(request, context, kind, request.query)
        return pb.ListActsResponse(rows=act_rows(found, now), page=ending)

    async def ListDivergences(self, request: pb.ListDivergencesRequest, context: Context) -> pb.ListDivergencesResponse:
        """Returns a page of divergences."""
        found, ending = await self._page(request, context, divergences(request.condition), request.query)
        return pb.ListDivergencesResponse(rows=divergence_rows(found), page=ending)

    async def CountDivergences(
        self, request: pb.CountDivergencesRequest, context: Context
    ) -> pb.CountDivergencesResponse:
        """Returns all counts of divergences."""

        def count(connection: Connection, position: Position) -> list[DivergenceCount]:
            return divergence_counts(connection, request.condition, _chosen(request, datetime.now(UTC)))

        counts, covered = await self._asked(request, context, count)
        return pb.CountDivergencesResponse(counts=counts, as_of=covered)

    async def CountFlows(self, request: pb.CountFlowsRequest, context: Context) -> pb.CountFlowsResponse:
        """Returns all counts of flows."""

        def count(connection: Connection, position: Position) -> list[pb.FlowCount]:
            now = datetime.now(UTC)
            chosen = _chosen(request, now)
            if request.by_status_only:
                return status_counts(connection, chosen, flow_types=request.scope.flow_types)
            return flow_counts(connection, chosen, now)

        counts, covered = await self._asked(request, context, count)
        return pb.CountFlowsResponse(counts=counts, as_of=covered)

    async def CountFlowsByHour(
        self, request: pb.CountFlowsByHourRequest, context: Context
    ) -> pb.CountFlowsByHourResponse:
        """Returns all counts of flows by hour."""

        def count(connection: Connection, position: Position) -> list[FlowHour]:
            return hour_counts(connection, request.scope.flow_types, request.hours, datetime.now(UTC))

        counts, covered = await self._asked(request, context, count)
        return pb.CountFlowsByHourResponse(counts=counts, as_of=covered)

    async def CountFailures(self, request: pb.CountFailuresRequest, context: Context) -> pb.CountFailuresResponse:
        """Returns the most frequent failures."""
        since = from_timestamp(request.since) if request.HasField("since") else None

        def count(connection: Connection, position: Position) -> list[pb.FailureCount]:
            return failure_counts(connection, _chosen(request, datetime.now(UTC)), since=since, most=request.most)

        counts, covered = await self._asked(request, context, count)
        return pb.CountFailuresResponse(counts=counts, as_of=covered)

    async def ListOpenFlows(self, request: pb.ListOpenFlowsRequest, context: Context) -> pb.ListOpenFlowsResponse:
        """Returns a page of open flows."""
        return await self._sweeps.ask(
            lambda connection, position: open_flows(connection, position, request), self._patience(request, context)
        )

    async def GetArchivedFlow(self, request: pb.GetArchivedFlowRequest, context: Context) -> pb.GetArchivedFlowResponse:
        """Returns a flow that left the stream, and a page of its messages."""
        patience = self._patience(request, context)
        return await self._readings.ask(
            lambda connection, position: self._archived.answer(connection, request), patience
        )

    async def _page(self, request: Message, context: Context, kind: Kind, query: pb.Query) -> tuple[Found, pb.Page]:
        found, covered = await self._asked(
            request, context, lambda connection, position: page(connection, position, kind, query)
        )
        return found, _ending(found, covered)

    async def _asked(self, request: Message, context: Context, question: Question[Answer]) -> tuple[Answer, AsOf]:
        """Returns the answer, and what it covers. Raises CONTRACT_VIOLATION and what `Snapshots` raises."""
        patience = self._patience(request, context)

        def ask(connection: Connection, position: Position) -> tuple[Answer, Position]:
            return question(connection, position), position

        head = await self._head.sequence()
        answer, position = await self._snapshots.ask(ask, patience)
        return answer, as_of(position, head)

    def _patience(self, request: Message, context: Context) -> timedelta:
        """Returns how long the answer may take. Raises CONTRACT_VIOLATION."""
        broken = self._contracts.violations(request)
        if broken:
            raise ContractViolation(request.DESCRIPTOR.full_name, broken)
        # None if the caller set no deadline; the type stub omits that.
        left: float | None = context.time_remaining()
        return _PATIENCE if left is None else timedelta(seconds=left) * _MARGIN


def _ending(found: Found, covered: AsOf) -> pb.Page:
    return pb.Page(next_page_token=found.next_token, total=found.total, as_of=covered)


def _chosen(request: _Asking, now: datetime) -> ColumnElement[bool]:
    return selected(tree_of(list(request.filters)), request.scope, now)
