"""The history of a flow: its messages in stream order, including the unreadable ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from handrail.mesh.bus import RawMessage
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow, Void
from handrail.mesh.wire import envelope, ids
from handrail.mesh.wire.envelope import Malformed, Recorded
from handrail.mesh.wire.subjects import Kind


class History(list[Recorded]):
    """The messages of a flow in stream order. `malformed` are the unreadable ones."""

    def __init__(self, messages: Iterable[Recorded] = (), malformed: Iterable[Malformed] = ()) -> None:
        super().__init__(messages)
        self.malformed = tuple(malformed)

    @property
    def last_sequence(self) -> int:
        """The position of its newest message, readable or not; 0 if it is empty."""
        readable = self[-1].sequence if self else 0
        return max(readable, *(each.sequence for each in self.malformed[-1:]), 0)

    def everything(self) -> list[Recorded | Malformed]:
        """All messages in stream order, including the unreadable ones."""
        return sorted((*self, *self.malformed), key=lambda each: each.sequence)


def has_beginning(history: Sequence[Recorded]) -> bool:
    """Whether there is a message in the place of the first event, readable or not; `history` has messages."""
    first = history[0]
    if first.kind is Kind.EVENT and not first.event.step:
        return True
    start_id = ids.start_id(first.address.flow_id)
    unreadable = history.malformed if isinstance(history, History) else ()
    return any(each.event_id == start_id for each in history) or any(start_id in each.subject for each in unreadable)


def with_malformed(flow: Flow, history: Sequence[Recorded]) -> Flow:
    """Adds the unreadable messages of a `History` to a flow that was folded from the readable ones."""
    for each in history.malformed if isinstance(history, History) else ():
        take_malformed(flow, each)
    return flow


def take_malformed(flow: Flow, malformed: Malformed) -> None:
    """Adds an unreadable message to a flow: it is void, and decisions are appended after it."""
    flow.void[malformed.sequence] = Void(malformed.error.text, malformed.error.reason)
    flow.last_sequence = max(flow.last_sequence, malformed.sequence)
    flow.message_count += 1


def decoded(messages: Sequence[RawMessage]) -> History:
    """Decodes messages of one flow, in stream order."""
    recorded: list[Recorded] = []
    malformed: list[Malformed] = []
    for message in messages:
        try:
            recorded.append(
                envelope.decode(message.subject, message.body, sequence=message.sequence, time=message.time)
            )
        except HandrailError as error:
            malformed.append(Malformed(message.subject, message.sequence, message.time, error))
    return History(recorded, malformed)
