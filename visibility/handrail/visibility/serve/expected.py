"""What the flows of a list wait for, as far as the index has it: people first, as a single flow shows it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Connection, Row, Table, select

from handrail.mesh.wire.envelope import timestamp
from handrail.v1.flow_service_pb2 import Expectation
from handrail.visibility.index import schema

Rows = Sequence[Row[tuple[object, ...]]]

_OPERATOR = "operator"


def expected(connection: Connection, flows: Rows) -> Mapping[int, Sequence[Expectation]]:
    """Returns what each flow that is not over waits for, by its first sequence. Raises what the database raises."""
    is_open = {row.first_sequence: row for row in flows if row.ended is None}
    found: defaultdict[int, list[Expectation]] = defaultdict(list)
    if is_open:
        for row in _of(connection, schema.escalation, is_open):
            found[row.first_sequence].append(_answer(row))
        for row in _of(connection, schema.approval, is_open):
            if row.status == "PENDING":
                found[row.first_sequence].append(_votes(row, is_open[row.first_sequence]))
        for row in _of(connection, schema.owed, is_open):
            found[row.first_sequence].append(_work(row))
    return found


def _of(connection: Connection, table: Table, flows: Mapping[int, object]) -> Iterator[Row[tuple[object, ...]]]:
    """The rows of a table of these flows, in the order of their keys."""
    chosen = table.c.first_sequence.in_(list(flows))
    yield from connection.execute(select(table).where(chosen).order_by(*table.primary_key))


def _answer(row: Row[tuple[object, ...]]) -> Expectation:
    return Expectation(
        what=f"an answer: {row.reason}", by_roles=[_OPERATOR], step=row.step, subject_id=row.escalation_id
    )


def _votes(row: Row[tuple[object, ...]], flow: Row[tuple[object, ...]]) -> Expectation:
    return Expectation(
        what=f"approval of {row.type}",
        due_time=_time(row.expires),
        step=row.step,
        subject_id=f"{flow.flow_type}.{flow.flow_id}.{row.proposal_id}",
    )


def _work(row: Row[tuple[object, ...]]) -> Expectation:
    again = f", attempt {row.attempt}" if row.attempt > 1 else ""
    return Expectation(
        what=f"the outcome of step {row.step}{again}", by_agent=row.agent, due_time=_time(row.due), step=row.step
    )


def _time(time: datetime | None) -> Timestamp | None:
    return None if time is None else timestamp(time)
