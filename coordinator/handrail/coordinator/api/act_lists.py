"""Lists of acts on flows that need two persons: from the index, or by a scan of the stream."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple

from handrail.coordinator.api import authorization
from handrail.coordinator.api.deadlines import time_left
from handrail.coordinator.api.listing import DEFAULT_PAGE, gathered, listed, page, scope
from handrail.coordinator.api.paging import page_of, page_size, page_token, sequence_of
from handrail.coordinator.api.views import act_view, unreadable_act
from handrail.coordinator.lists.acts import ActScanner, Waiting
from handrail.coordinator.lists.flows import Scanner
from handrail.coordinator.lists.index import LONGEST, Index
from handrail.index.v1.index_service_pb2 import ActRow, Query
from handrail.index.v1.index_service_pb2 import ListActsRequest as Question
from handrail.mesh.flow import Flow
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.wire.envelope import Unreadable
from handrail.v1 import act_service_pb2 as pb
from handrail.v1.act_pb2 import ActStatus, PendingAct
from handrail.v1.listing_pb2 import AsOf, Total

_WAITING = frozenset({ActStatus.ACT_STATUS_PENDING, ActStatus.ACT_STATUS_UNSPECIFIED})
"""Statuses of acts that wait for people, or can't be read."""


class Acts(NamedTuple):
    """One page of acts, and what it covers, unless the stream was scanned."""

    acts: Sequence[PendingAct]
    next_page_token: str
    as_of: AsOf | None = None
    total: Total | None = None


class ActLists:
    """Lists acts on flows. Every list also raises what the index or reading the stream raises."""

    def __init__(self, index: Index, acts: ActScanner, flows: Scanner, catalog: Catalog) -> None:
        self._index = index
        self._acts = acts
        self._flows = flows
        self._catalog = catalog

    async def acts(self, request: pb.ListActsRequest, now: datetime) -> Acts:
        """Returns one page of acts, oldest first, as they are at `now`."""
        if request.scan or not self._index.is_there:
            return await self._scanned(request, now)
        query = Query(
            scope=await scope(self._catalog, ""),
            filters=[f"flow_type = {request.flow_type}"] if request.flow_type else [],
            page_size=page_size(request.page_size, DEFAULT_PAGE),
            page_token=request.page_token,
        )
        asked = Question(query=query, include_closed=request.include_closed)
        answer = await self._index.ask(self._index.questions.ListActs, asked, time_left(LONGEST))
        rows = await self._current(listed(answer.rows, _type_of), now)
        if not request.include_closed:
            rows = [row for row in rows if row.act.status in _WAITING]
        shown, token = page(rows, answer.page, _view)
        return Acts(shown, token, answer.page.as_of, answer.page.total)

    async def _scanned(self, request: pb.ListActsRequest, now: datetime) -> Acts:
        listing = ("acts", request.flow_type, request.include_closed)
        found = await self._acts.acts(
            flow_type=request.flow_type,
            include_closed=request.include_closed,
            now=now,
            cursor=sequence_of(request.page_token, *listing),
            size=page_size(request.page_size, DEFAULT_PAGE),
            covers=authorization.lists,
        )
        acts, cursor = page_of(found, partial(_listed, now=now))
        return Acts(acts, page_token(cursor, *listing))

    async def _current(self, rows: Sequence[ActRow], now: datetime) -> list[ActRow]:
        """Shows acts in their current state: reads their flows, each at least as new as the index had it."""
        newest = {(row.act.flow_type, row.act.flow_id): row.last_sequence for row in rows}
        found = await gathered(self._flows.flow(*key, at_least) for key, at_least in newest.items())
        flows = dict(zip(newest, found, strict=True))
        return [
            ActRow(act=_shown(row, flows[row.act.flow_type, row.act.flow_id], now), page_token=row.page_token)
            for row in rows
        ]


def _shown(row: ActRow, flow: Flow | Unreadable | None, now: datetime) -> PendingAct:
    """Shows an act of a flow that was read; as the index has it, if the stream does not have the flow any more."""
    if isinstance(flow, Unreadable):
        return unreadable_act(Unreadable(flow.flow_type, flow.flow_id, flow.why, row.act_id))
    act = None if flow is None else flow.acts.get(row.act_id)
    return row.act if flow is None or act is None else act_view(flow, act, now=now)


def _listed(item: Waiting | Unreadable, *, now: datetime) -> PendingAct:
    return unreadable_act(item) if isinstance(item, Unreadable) else act_view(item.flow, item.act, now=now)


def _type_of(row: ActRow) -> str:
    return row.act.flow_type


def _view(row: ActRow) -> PendingAct:
    return row.act
