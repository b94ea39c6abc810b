"""Divergences of a list, and their counts. Pure but for reading the index."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import ColumnElement, Connection, Row, func, select

from handrail.index.v1.index_service_pb2 import DivergenceCondition, DivergenceRow
from handrail.mesh.wire.envelope import from_timestamp, timestamp
from handrail.v1.failure_pb2 import DivergenceKind
from handrail.v1.flow_service_pb2 import DivergenceCount, FlowDivergence, ListedDivergence
from handrail.visibility.index import schema
from handrail.visibility.serve.keyed import keyed
from handrail.visibility.serve.listing import Found, Kind, of_statement

_TABLE = schema.divergence.c
_OF_FLOW = _TABLE.first_sequence == schema.flow.c.first_sequence
_STATEMENT = select(schema.divergence, schema.flow.c.flow_id).join_from(schema.divergence, schema.flow, _OF_FLOW)
_GROUP = (_TABLE.flow_type, _TABLE.version, _TABLE.agent, _TABLE.kind)


def divergences(condition: DivergenceCondition) -> Kind:
    """The divergences that a condition selects."""
    identity = (
        "divergences",
        condition.agent,
        condition.since.ToNanoseconds() if condition.HasField("since") else None,
    )
    return Kind(
        identity,
        of_statement(_STATEMENT.where(*_conditions(condition))),
        lambda text: keyed(text, "time", {"sequence": int}, schema.divergence, descending=True),
    )


def divergence_rows(found: Found) -> list[DivergenceRow]:
    """Returns the divergences of a page."""
    return [DivergenceRow(divergence=_listed(row), page_token=found.token(row)) for row in found.rows]


def divergence_counts(
    connection: Connection, condition: DivergenceCondition, of_flows: ColumnElement[bool]
) -> list[DivergenceCount]:
    """Counts divergences by flow type, version, agent and kind, the largest count first; examples are the newest."""
    statement = (
        select(*_GROUP, func.count().label("times"), func.max(_TABLE.sequence).label("newest"))
        .join_from(schema.divergence, schema.flow, _OF_FLOW)
        .where(of_flows, *_conditions(condition))
        .group_by(*_GROUP)
        .order_by(func.count().desc(), func.max(_TABLE.sequence).desc())
    )
    groups = connection.execute(statement).all()
    newest = connection.execute(_STATEMENT.where(_TABLE.sequence.in_([each.newest for each in groups]))).all()
    examples = {row.sequence: _listed(row) for row in newest}
    return [
        DivergenceCount(
            flow_type=each.flow_type,
            template_version=each.version,
            agent=each.agent,
            kind=_kind(each.kind),
            count=each.times,
            example=examples[each.newest],
        )
        for each in groups
    ]


def _conditions(condition: DivergenceCondition) -> Iterator[ColumnElement[bool]]:
    if condition.agent:
        yield _TABLE.agent == condition.agent
    if condition.HasField("since"):
        yield _TABLE.time >= from_timestamp(condition.since)


def _listed(row: Row[tuple[object, ...]]) -> ListedDivergence:
    return ListedDivergence(
        flow_id=row.flow_id,
        flow_type=row.flow_type,
        divergence=FlowDivergence(
            sequence=row.sequence,
            agent=row.agent,
            type=row.type,
            text=row.text,
            kind=_kind(row.kind),
            template_version=row.version,
            time=timestamp(row.time),
        ),
    )


def _kind(name: str) -> DivergenceKind.ValueType:
    return DivergenceKind.Value(f"DIVERGENCE_KIND_{name}")
