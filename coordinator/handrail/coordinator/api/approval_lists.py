"""Lists of approvals: from the index, or by a scan of the stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from handrail.coordinator.api import authorization
from handrail.coordinator.api.deadlines import time_left
from handrail.coordinator.api.listing import DEFAULT_PAGE, gathered, listed, page, query, require_plain
from handrail.coordinator.api.paging import page_of, page_size, page_token, sequence_of
from handrail.coordinator.api.qualified_id import parsed
from handrail.coordinator.api.read_mask import ReadMask
from handrail.coordinator.api.views import approval_view, unreadable_approval
from handrail.coordinator.lists.flows import Asked, Scanner
from handrail.coordinator.lists.index import LONGEST, Index
from handrail.index.v1.index_service_pb2 import ApprovalRow
from handrail.index.v1.index_service_pb2 import ListApprovalsRequest as Question
from handrail.mesh.flow import Flow
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.wire.envelope import Unreadable
from handrail.v1 import approval_service_pb2 as pb
from handrail.v1.flow_service_pb2 import Approval, ApprovalStatus

_INDEXED = frozenset(
    {"approval_id", "flow_id", "flow_type", "step", "agent", "type", "status", "request_time", "expire_time"}
)
"""The fields of an approval that the index has. For others, its flow is read."""

_WAITING = frozenset({ApprovalStatus.APPROVAL_STATUS_PENDING, ApprovalStatus.APPROVAL_STATUS_UNSPECIFIED})
"""Statuses of approvals that wait for people, or can't be read."""


class ApprovalLists:
    """Lists approvals. Every list also raises what the index or reading the stream raises."""

    def __init__(self, index: Index, scanner: Scanner, store: FlowStore) -> None:
        self._index = index
        self._scanner = scanner
        self._store = store

    async def approvals(self, request: pb.ListApprovalsRequest) -> pb.ListApprovalsResponse:
        """Returns one page of approvals."""
        mask = ReadMask(request, Approval)
        if request.scan:
            return await self._scanned(request, mask)
        questions = self._index.questions
        asked = Question(
            query=await query(request, self._store.catalog, _conditions(request)), include_closed=request.include_closed
        )
        answer = await self._index.ask(questions.ListApprovals, asked, time_left(LONGEST))
        rows: Sequence[ApprovalRow] = listed(answer.rows, _type_of)
        if not mask.is_within(_INDEXED):
            rows = await self._current(rows)
        if not request.include_closed:
            rows = [row for row in rows if row.approval.status in _WAITING]

        def view(row: ApprovalRow) -> Approval:
            return mask.of(row.approval)

        shown, token = page(rows, answer.page, view)
        return pb.ListApprovalsResponse(
            approvals=shown, next_page_token=token, as_of=answer.page.as_of, total=answer.page.total
        )

    async def _scanned(self, request: pb.ListApprovalsRequest, mask: ReadMask[Approval]) -> pb.ListApprovalsResponse:
        require_plain(request.filter, request.order_by)
        listing = ("approvals", request.flow_type, request.include_closed)
        found = await self._scanner.approvals(
            flow_type=request.flow_type,
            include_closed=request.include_closed,
            cursor=sequence_of(request.page_token, *listing),
            size=page_size(request.page_size, DEFAULT_PAGE),
            covers=authorization.lists,
        )
        approvals, cursor = page_of(found, lambda item: mask.of(_listed(item)))
        return pb.ListApprovalsResponse(approvals=approvals, next_page_token=page_token(cursor, *listing))

    async def _current(self, rows: Sequence[ApprovalRow]) -> Sequence[ApprovalRow]:
        """Shows approvals in their current state: reads their flows, each at least as new as the index had it."""
        newest = {(row.approval.flow_type, row.approval.flow_id): row.last_sequence for row in rows}
        found = await gathered(self._scanner.flow(*key, at_least) for key, at_least in newest.items())
        flows = dict(zip(newest, found, strict=True))
        return [
            ApprovalRow(
                approval=_shown(row.approval, flows[row.approval.flow_type, row.approval.flow_id]),
                page_token=row.page_token,
            )
            for row in rows
        ]


def _conditions(request: pb.ListApprovalsRequest) -> Iterator[str]:
    """What the request says of flows, as filters. The contract lets no other characters into a flow type."""
    if request.flow_type:
        yield f"flow_type = {request.flow_type}"


def _type_of(row: ApprovalRow) -> str:
    return row.approval.flow_type


def _shown(indexed: Approval, flow: Flow | Unreadable | None) -> Approval:
    """Shows an approval of a flow that was read; as the index has it, if the stream does not have the flow any more."""
    named = parsed(indexed.approval_id)
    if flow is None or named is None:
        return indexed
    if isinstance(flow, Unreadable):
        return unreadable_approval(Unreadable(flow.flow_type, flow.flow_id, flow.why, named.own_id))
    proposal = flow.proposals.get(named.own_id)
    return indexed if proposal is None else approval_view(flow, proposal)


def _listed(item: Asked | Unreadable) -> Approval:
    return unreadable_approval(item) if isinstance(item, Unreadable) else approval_view(item.flow, item.proposal)
