"""Messages of agents that come before the first event of their flow, of all kinds and versions."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry
from handrail.mesh.wire.subjects import Kind
from handrail.v1.event_pb2 import Event
from tests.support.flows import enriched, start

_KINDS = (Kind.EVENT, Kind.PROPOSAL, Kind.FAILURE, Kind.PROGRESS, Kind.UNDONE, Kind.DIVERGENCE, Kind.RELEASED)


class Stray(NamedTuple):
    """A message's subject and bytes."""

    subject: str
    body: bytes


def claiming(entry: Entry, version: int) -> Entry:
    """The same message, of an agent that takes the flow for one of this version."""
    event = Event()
    event.CopyFrom(entry.event)
    event.template_version = version
    return Entry(entry.address, event)


def outcome(version: int, *, run: int, kind: Kind = Kind.EVENT, flow_type: str = "refund") -> Entry:
    """An outcome of the first step, of a run that there never was."""
    entry = claiming(enriched(flow_type=flow_type, kind=kind), version)
    event = entry.event
    event.run = run
    event.event_id = ids.outcome_id(event.flow_id, event.step, event.root, run, 0)
    return Entry(entry.address._replace(event_id=event.event_id), event)


def false_start(version: int, *, flow_type: str = "refund") -> Entry:
    """A first event by an agent that may not start the flow."""
    entry = claiming(start(flow_type=flow_type), version)
    entry.event.source = "enrichment"
    return Entry(entry.address._replace(agent="enrichment"), entry.event)


def strays(*, most: int, first_run: int = 1) -> st.SearchStrategy[list[Stray]]:
    """Some messages, each on a subject of its own; their versions are 1, 2, or 7, which is not stored."""
    shapes = st.tuples(st.sampled_from([*_KINDS, "unreadable", "false start"]), st.sampled_from([1, 2, 7]))
    return st.lists(shapes, max_size=most).map(
        lambda some: [_stray(shape, version, first_run + number) for number, (shape, version) in enumerate(some)]
    )


def _stray(shape: Kind | str, version: int, run: int) -> Stray:
    if isinstance(shape, Kind):
        entry = outcome(version, run=run, kind=shape)
        return Stray(entry.address.subject, entry.body)
    if shape == "unreadable":
        return Stray(outcome(version, run=run).address.subject, b"\xff not a message")
    entry = false_start(version)
    return Stray(entry.address.subject, entry.body)
