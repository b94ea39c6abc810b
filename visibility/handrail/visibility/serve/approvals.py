"""Approvals of a list, as far as the index has them. Pure."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Row, select

from handrail.index.v1.index_service_pb2 import ApprovalRow
from handrail.mesh.wire.envelope import timestamp
from handrail.v1.flow_service_pb2 import Approval, ApprovalStatus
from handrail.visibility.index import schema
from handrail.visibility.serve.keyed import keyed
from handrail.visibility.serve.listing import Found, Kind, of_statement

_KEYS = {"requested": datetime, "first_sequence": int, "proposal_id": str}
_STATEMENT = select(
    *(each for each in schema.approval.c if each.name != "first_sequence"),
    schema.approval.c.first_sequence,
    schema.flow.c.flow_id,
    schema.flow.c.flow_type,
    schema.flow.c.last_sequence,
).join_from(schema.approval, schema.flow, schema.approval.c.first_sequence == schema.flow.c.first_sequence)


def approvals(*, include_closed: bool) -> Kind:
    """Approvals that wait for people, or all that ever did."""
    open_ones = _STATEMENT.where(schema.approval.c.status == "PENDING")
    return Kind(
        ("approvals", include_closed),
        of_statement(_STATEMENT if include_closed else open_ones),
        lambda text: keyed(text, "requested", _KEYS, schema.approval, descending=False),
    )


def approval_rows(found: Found) -> list[ApprovalRow]:
    """Returns the approvals of a page."""
    return [
        ApprovalRow(approval=_approval(row), last_sequence=row.last_sequence, page_token=found.token(row))
        for row in found.rows
    ]


def _approval(row: Row[tuple[object, ...]]) -> Approval:
    return Approval(
        approval_id=f"{row.flow_type}.{row.flow_id}.{row.proposal_id}",
        flow_id=row.flow_id,
        flow_type=row.flow_type,
        step=row.step,
        agent=row.agent,
        type=row.type,
        status=ApprovalStatus.Value(f"APPROVAL_STATUS_{row.status}"),
        request_time=None if row.requested is None else timestamp(row.requested),
        expire_time=None if row.expires is None else timestamp(row.expires),
    )
