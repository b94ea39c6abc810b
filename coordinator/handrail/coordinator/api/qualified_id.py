"""Ids of approvals and acts as callers see them: they name the flow, so that it is found without a search.

A broker that has a million subjects takes 38 ms to find one by the id of its message alone, and a millisecond with the
flow's type and id before it.
"""

from __future__ import annotations

from typing import NamedTuple

from handrail.mesh.flow import Flow


class QualifiedId(NamedTuple):
    """The id of a message of a flow, and the flow: `<flow type>.<flow id>.<message id>`."""

    flow_type: str
    flow_id: str
    own_id: str

    def __str__(self) -> str:
        return ".".join(self)


def qualified(flow: Flow, own_id: str) -> str:
    """Returns the id of one of the flow's messages as callers see it."""
    return str(QualifiedId(flow.flow_type, flow.flow_id, own_id))


def parsed(text: str) -> QualifiedId | None:
    """Returns the parts of an id; None if it names no flow."""
    parts = text.split(".")
    return QualifiedId(*parts) if len(parts) == 3 else None
