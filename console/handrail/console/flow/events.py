"""The messages of a flow: as rows, one in detail, and as a tree of causes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf.any_pb2 import Any

from handrail.console.flow import states
from handrail.mesh.printable import json_text, shortened
from handrail.v1.event_pb2 import RecordedEvent

Opened = Callable[[RecordedEvent], Mapping[str, object]]
"""Opens the payload of a message by its contract; never fails."""

_PREVIEW = 120
_LONGEST = 20_000
_DEEPEST = 12


@dataclass(frozen=True, slots=True)
class Row:
    """A message in a list. `void` says why it does not count; empty if it does. `depth` is its depth in the tree."""

    sequence: int
    time: datetime
    kind: str
    agent: str
    step: str
    type: str
    preview: str
    void: str
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Detail:
    """One message: its fields, and its payload as lines of JSON; `is_cut` if there are more."""

    row: Row
    facts: tuple[tuple[str, str], ...]
    payload: tuple[str, ...]
    is_cut: bool


def rows(events: Sequence[RecordedEvent], opened: Opened) -> list[Row]:
    """The messages in the order of the stream."""
    return [_row(each, opened) for each in events]


def tree(events: Sequence[RecordedEvent], opened: Opened) -> list[Row]:
    """Each message below the one that caused it."""
    known = {each.event.event_id: each.sequence for each in reversed(events) if each.HasField("event")}
    below: dict[int, list[RecordedEvent]] = {}
    for each in events:
        cause = known.get(each.event.causation_id, 0)
        # A cause comes before its consequence; whatever else a message says would make a circle.
        below.setdefault(cause if cause < each.sequence else 0, []).append(each)
    return list(_below(0, 0, below, opened))


def detail(recorded: RecordedEvent, opened: Opened) -> Detail:
    """One message with all that it says."""
    event = recorded.event
    text = json_text(opened(recorded), indent=2)
    facts = [
        ("event", event.event_id),
        ("type", recorded.type),
        ("by", event.source),
        ("attempt", str(event.attempt) if event.attempt else ""),
        ("run", str(event.run) if event.run else ""),
        ("output", f"{event.output_index + 1} of {event.output_total}" if event.output_total > 1 else ""),
        ("root", event.root),
        ("cause", event.causation_id),
        ("requester", event.requester),
        ("request", event.request.id),
        ("caller", event.request.caller),
        ("decided at sequence", str(event.based_on_sequence) if event.based_on_sequence else ""),
        ("confirmed by", event.confirmation.by),
    ]
    return Detail(
        _row(recorded, opened),
        tuple((name, value) for name, value in facts if value),
        tuple(text[:_LONGEST].split("\n")),
        len(text) > _LONGEST,
    )


def raw(data: Any) -> Mapping[str, object]:
    """A payload that no contract opens: its type and its bytes."""
    return {"@type": data.type_url, "bytes": data.value.hex()}


def _below(cause: int, depth: int, below: Mapping[int, Sequence[RecordedEvent]], opened: Opened) -> Iterator[Row]:
    # No recursion: a flow may be a chain of a thousand messages.
    stack = [(each, depth) for each in reversed(below.get(cause, ()))]
    while stack:
        each, at = stack.pop()
        yield _row(each, opened, depth=min(at, _DEEPEST))
        stack += [(child, at + 1) for child in reversed(below.get(each.sequence, ()))]


def _row(recorded: RecordedEvent, opened: Opened, *, depth: int = 0) -> Row:
    fields = {key: value for key, value in opened(recorded).items() if key != "@type"}
    return Row(
        recorded.sequence,
        recorded.time.ToDatetime(UTC),
        states.of_kind(recorded.kind),
        recorded.agent,
        recorded.event.step,
        states.short_type(recorded.type),
        shortened(json_text(fields), _PREVIEW) if fields else "",
        recorded.void_reason,
        depth,
    )
