"""Messages by the flow that they belong to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from handrail.mesh.bus import RawMessage
from handrail.mesh.errors import HandrailError
from handrail.mesh.wire import ids
from handrail.mesh.wire.subjects import IDENTIFIER, NAME, Kind, parse
from handrail.visibility.follow.open_flows import FlowKey


class Group(NamedTuple):
    """The next messages of a flow, in stream order. `is_new`: the index has nothing of it, and it begins with them."""

    key: FlowKey
    messages: list[RawMessage]
    is_new: bool


def by_flow(messages: Iterable[RawMessage]) -> Mapping[FlowKey, list[RawMessage]]:
    """Groups messages by type and id. Where one of them is malformed, there can be no flow."""
    grouped: defaultdict[tuple[str, str], list[RawMessage]] = defaultdict(list)
    for message in messages:
        tokens = message.subject.split(".", 3)
        if len(tokens) > 3:
            grouped[tokens[1], tokens[2]].append(message)
    return {key: some for key, some in grouped.items() if NAME.fullmatch(key[0]) and IDENTIFIER.fullmatch(key[1])}


def begins(message: RawMessage) -> bool:
    """Tells whether a flow may begin with this message."""
    try:
        address = parse(message.subject)
    except HandrailError:
        return False
    return address.kind is Kind.EVENT and address.event_id == ids.start_id(address.flow_id)
