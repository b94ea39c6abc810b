"""Flows that are not over, for the sweep of a coordinator. Pure but for reading the index."""

from __future__ import annotations

from sqlalchemy import Connection, literal, select, union_all

from handrail.index.v1.index_service_pb2 import ListOpenFlowsRequest, ListOpenFlowsResponse, OpenFlow
from handrail.visibility.index import schema
from handrail.visibility.index.database import Position
from handrail.visibility.index.errors import index_error
from handrail.visibility.index.writer import OTHERS
from handrail.visibility.serve.head import as_of


def open_flows(connection: Connection, position: Position, request: ListOpenFlowsRequest) -> ListOpenFlowsResponse:
    """Returns a page of the flows that are not over, and of those that could not be folded, by their last message.

    Raises INDEX_UNAVAILABLE if the index has no names for some of them.
    """
    flow, unfolded = schema.flow.c, schema.unfolded.c
    if connection.execute(
        select(literal(1)).where(unfolded.flow_type == OTHERS[0], unfolded.flow_id == OTHERS[1])
    ).first():
        raise index_error("it does not name all flows that can't be folded")
    size = request.page_size
    known = (
        select(flow.last_sequence, flow.flow_type, flow.flow_id)
        .where(flow.ended.is_(None), flow.last_sequence > request.after, flow.last_sequence <= request.up_to)
        .order_by(flow.last_sequence)
        .limit(size + 1)
        .subquery()
    )
    others = (
        select(unfolded.sequence, unfolded.flow_type, unfolded.flow_id)
        .where(unfolded.sequence > request.after, unfolded.sequence <= request.up_to)
        .order_by(unfolded.sequence)
        .limit(size + 1)
        .subquery()
    )
    both = union_all(select(known), select(others)).subquery()
    rows = connection.execute(select(both).order_by(both.c.last_sequence).limit(size + 1)).all()
    return ListOpenFlowsResponse(
        flows=[
            OpenFlow(flow_type=row.flow_type, flow_id=row.flow_id, last_sequence=row.last_sequence)
            for row in rows[:size]
        ],
        more=len(rows) > size,
        stream_created=position.stream_created,
        as_of=as_of(position, None),
    )
