"""Acts on flows that need two persons, as far as the index has them. Pure."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Row, select

from handrail.index.v1.index_service_pb2 import ActRow
from handrail.mesh.wire.envelope import timestamp
from handrail.v1.act_pb2 import ActStatus, PendingAct
from handrail.visibility.index import schema
from handrail.visibility.serve.keyed import keyed
from handrail.visibility.serve.listing import Found, Kind, of_statement

_ACT = schema.act.c
_KEYS = {"requested": datetime, "first_sequence": int, "act_id": str}
_STATEMENT = select(schema.act, schema.flow.c.flow_id, schema.flow.c.flow_type, schema.flow.c.last_sequence).join_from(
    schema.act, schema.flow, _ACT.first_sequence == schema.flow.c.first_sequence
)


def acts(*, include_closed: bool, now: datetime) -> Kind:
    """Acts that wait for another person at `now`, or all that there ever were."""
    waiting = _STATEMENT.where(_ACT.status == "PENDING", _ACT.expires >= now)
    return Kind(
        ("acts", include_closed),
        of_statement(_STATEMENT if include_closed else waiting),
        lambda text: keyed(text, "requested", _KEYS, schema.act, descending=False),
    )


def act_rows(found: Found, now: datetime) -> list[ActRow]:
    """Returns the acts of a page, as they are at `now`."""
    return [
        ActRow(act=_act(row, now), act_id=row.act_id, last_sequence=row.last_sequence, page_token=found.token(row))
        for row in found.rows
    ]


def _act(row: Row[tuple[object, ...]], now: datetime) -> PendingAct:
    is_over = row.status == "PENDING" and row.expires < now
    return PendingAct(
        act_id=f"{row.flow_type}.{row.flow_id}.{row.act_id}",
        flow_id=row.flow_id,
        flow_type=row.flow_type,
        status=ActStatus.ACT_STATUS_EXPIRED if is_over else ActStatus.Value(f"ACT_STATUS_{row.status}"),
        request_time=timestamp(row.requested),
        expire_time=timestamp(row.expires),
    )
