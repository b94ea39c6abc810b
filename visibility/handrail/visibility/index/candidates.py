"""Finished flows that may be archived, by the index."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError

from handrail.mesh.template import Template
from handrail.visibility.index import schema
from handrail.visibility.index.errors import refuse


class Candidate(NamedTuple):
    """A flow that ended."""

    ended: datetime
    first_sequence: int
    flow_id: str


def candidates(
    engine: Engine, template: Template, *, before: datetime, up_to: int, after: Candidate | None, most: int
) -> list[Candidate]:
    """The flows of a version of a template that ended before a time and are not archived, those that ended first first.

    None has a message beyond sequence `up_to`. `after` is the last one of the page before. Raises INDEX_UNAVAILABLE.
    """
    at = schema.flow.c
    order = (at.ended, at.first_sequence)
    query = select(*order, at.flow_id).where(
        at.flow_type == template.name,
        at.version == template.version,
        at.ended < before,
        at.last_sequence <= up_to,
        at.verdict.is_(None),
        at.stuck_since.is_(None),
    )
    if after is not None:
        later = (at.ended == after.ended) & (at.first_sequence > after.first_sequence)
        query = query.where((at.ended > after.ended) | later)
    try:
        with engine.connect() as connection:
            return [Candidate(*row) for row in connection.execute(query.order_by(*order).limit(most))]
    except SQLAlchemyError as error:
        refuse(error, engine)
