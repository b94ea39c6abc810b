"""Counts of flows by type and hour, as the rows of the table `flow` have them. Pure but for reading these rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import Connection, select, type_coerce

from handrail.visibility.index import schema
from handrail.visibility.index.changes import Values

HOUR = timedelta(hours=1)
_MICROSECONDS = HOUR // timedelta(microseconds=1)
_FAILED = "FAILED"

_NAMES = [column.name for column in schema.flow.c]
_PLACES = [_NAMES.index(name) for name in ("flow_type", "status", "started", "ended")]


class Counted(NamedTuple):
    """What is counted of a flow, as it is stored: times are microseconds since 1970."""

    flow_type: str
    status: str
    started: int | None
    ended: int | None


def counted(rows: Iterable[Values]) -> list[Counted]:
    """What is counted of rows of `flow`, whose values are in the order of its columns."""
    return [Counted(*(row[place] for place in _PLACES)) for row in rows]  # type: ignore[arg-type]  # of any type


def read(connection: Connection, firsts: Collection[int]) -> list[Counted]:
    """What is counted of the flows that are stored, by their `first_sequence`. Nobody else changes them meanwhile."""
    at = schema.flow.c
    stored = (type_coerce(at.started, schema.SEQUENCE), type_coerce(at.ended, schema.SEQUENCE))
    query = select(at.flow_type, at.status, *stored).where(at.first_sequence.in_(firsts)).with_for_update()
    return [Counted(*row) for row in connection.execute(query)]


def difference(before: Iterable[Counted], after: Iterable[Counted]) -> Sequence[Values]:
    """What to add to the counts when flows change: rows of `flow_hour`, in the order of their keys."""
    began, failed = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    for flows, sign in ((before, -1), (after, 1)):
        for each in flows:
            if each.started is not None:
                began[each.flow_type, _hour(each.started)] += sign
            if each.status == _FAILED and each.ended is not None:
                failed[each.flow_type, _hour(each.ended)] += sign
    return [
        (*key, began[key], failed[key]) for key in sorted(began.keys() | failed.keys()) if began[key] or failed[key]
    ]


def _hour(time: int) -> int:
    """The beginning of the hour of a time, both in microseconds."""
    return time - time % _MICROSECONDS
