"""Counts of flows and of failures. Pure but for reading the index."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, case, exists, func, select

from handrail.index.v1.index_service_pb2 import FailureCount, FlowCount
from handrail.mesh.wire.envelope import timestamp
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.flow_service_pb2 import FlowHour
from handrail.v1.template_service_pb2 import UnboundedReason
from handrail.visibility.index import schema
from handrail.visibility.index.hours import HOUR

_EXAMPLES = 20

_FLOW = schema.flow.c
_FAILURE = schema.failure.c
_OF_FLOW = _FAILURE.first_sequence == _FLOW.first_sequence


def flow_counts(connection: Connection, of_flows: ColumnElement[bool], now: datetime) -> list[FlowCount]:
    """Counts flows by type, version, status and why they have no known end."""
    unbounded = _unbounded(now)
    chosen = (
        select(
            _FLOW.flow_type,
            _FLOW.version,
            _FLOW.status,
            _FLOW.started,
            _FLOW.deadline,
            _FLOW.flow_id,
            _FLOW.first_sequence,
            unbounded.label("unbounded"),
        )
        .where(of_flows)
        .subquery()
    )
    of = chosen.c
    group = (of.flow_type, of.version, of.status, of.unbounded)
    counted = select(
        *group,
        func.count().label("flows"),
        func.min(of.started, type_=schema.Instant).label("oldest"),
        func.max(of.deadline, type_=schema.Instant).label("latest"),
    )
    counts = connection.execute(counted.group_by(*group).order_by(*group)).all()
    place = func.row_number().over(partition_by=group, order_by=of.first_sequence.desc()).label("place")
    numbered = select(*group, of.flow_id, place).where(of.unbounded != 0).subquery()
    newest = select(numbered).where(numbered.c.place <= _EXAMPLES).order_by(numbered.c.place)
    examples: defaultdict[tuple[object, ...], list[str]] = defaultdict(list)
    for row in connection.execute(newest) if any(each.unbounded for each in counts) else ():
        examples[row.flow_type, row.version, row.status, row.unbounded].append(row.flow_id)
    return [
        FlowCount(
            flow_type=each.flow_type,
            template_version=each.version,
            status=FlowStatus.Value(f"FLOW_STATUS_{each.status}"),
            unbounded=each.unbounded,
            flows=each.flows,
            oldest_start_time=None if each.oldest is None else timestamp(each.oldest),
            latest_deadline=None if each.latest is None else timestamp(each.latest),
            newest_flow_ids=examples[each.flow_type, each.version, each.status, each.unbounded],
        )
        for each in counts
    ]


def status_counts(
    connection: Connection, of_flows: ColumnElement[bool], *, flow_types: Sequence[str]
) -> list[FlowCount]:
    """Counts flows of these types by type and status alone.

    An index has both, so that no flow is read unless a filter needs it, and none is looked at that a status leaves out.
    """
    group = (_FLOW.flow_type, _FLOW.status)
    chosen = select(*group, func.count().label("flows")).where(_FLOW.flow_type.in_(flow_types), of_flows)
    return [
        FlowCount(flow_type=each.flow_type, status=FlowStatus.Value(f"FLOW_STATUS_{each.status}"), flows=each.flows)
        for each in connection.execute(chosen.group_by(*group).order_by(*group))
    ]


def hour_counts(connection: Connection, flow_types: Sequence[str], hours: int, now: datetime) -> list[FlowHour]:
    """Counts flows of these types that began or failed, by type and hour, up to the present hour."""
    at = schema.flow_hour.c
    since = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0) - (hours - 1) * HOUR
    counted = select(schema.flow_hour).where(at.flow_type.in_(flow_types), at.hour >= since, at.began + at.failed > 0)
    return [
        FlowHour(flow_type=each.flow_type, hour=timestamp(each.hour), began=each.began, failed=each.failed)
        for each in connection.execute(counted.order_by(at.flow_type, at.hour))
    ]


def failure_counts(
    connection: Connection, of_flows: ColumnElement[bool], *, since: datetime | None, most: int
) -> list[FailureCount]:
    """Counts failures by signature, the most frequent first. What is shown of one is from the newest."""
    statement = (
        select(
            _FAILURE.signature,
            func.count().label("times"),
            func.min(_FAILURE.time, type_=schema.Instant).label("first"),
            func.max(_FAILURE.sequence).label("newest"),
        )
        .join_from(schema.failure, schema.flow, _OF_FLOW)
        .where(of_flows, *([] if since is None else [_FAILURE.time >= since]))
        .group_by(_FAILURE.signature)
        .order_by(func.count().desc(), func.max(_FAILURE.sequence).desc())
        .limit(most)
    )
    groups = connection.execute(statement).all()
    shown = (
        select(schema.failure, _FLOW.flow_id)
        .join_from(schema.failure, schema.flow, _OF_FLOW)
        .where(_FAILURE.sequence.in_([each.newest for each in groups]))
    )
    newest = {row.sequence: row for row in connection.execute(shown)}
    return [
        FailureCount(
            signature=each.signature,
            flow_type=last.flow_type,
            step=last.step,
            error_class=last.error_class,
            failures=each.times,
            flow_id=last.flow_id,
            text=last.text,
            first_time=timestamp(each.first),
            last_time=timestamp(last.time),
        )
        for each in groups
        for last in [newest[each.newest]]
    ]


def _unbounded(now: datetime) -> ColumnElement[int]:
    """Why a flow has no known end, as a number of `UnboundedReason`."""
    approval = schema.approval.c
    waits = (
        exists()
        .where(
            approval.first_sequence == _FLOW.first_sequence, approval.status == "PENDING", approval.expires.is_(None)
        )
        .correlate(schema.flow)
    )
    reason = UnboundedReason
    return case(
        (_FLOW.ended.is_not(None), reason.UNBOUNDED_REASON_UNSPECIFIED),
        (_FLOW.stuck_since.is_not(None), reason.UNBOUNDED_REASON_ESCALATED),
        (_FLOW.halt_mode != 0, reason.UNBOUNDED_REASON_HALTED),
        (_FLOW.deadline <= now, reason.UNBOUNDED_REASON_OVERDUE),
        (waits, reason.UNBOUNDED_REASON_WAITING_APPROVAL),
        else_=reason.UNBOUNDED_REASON_UNSPECIFIED,
    )
