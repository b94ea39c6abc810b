"""The flow as conditions may read it: its facts and undecided proposals, decoded on look-up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.message import Message

from handrail.mesh.contracts import Contracts
from handrail.mesh.flow.proposal import Proposal
from handrail.mesh.wire.envelope import Recorded


class Latest(Mapping[str, Message]):
    """The newest fact of each type, decoded on look-up."""

    def __init__(self, contracts: Contracts, by_type: Mapping[str, Sequence[Recorded]]) -> None:
        self._contracts = contracts
        self._by_type = by_type

    def __getitem__(self, message_type: str) -> Message:
        return self._contracts.decode(self._by_type[message_type][-1].event.data)

    def __contains__(self, message_type: object) -> bool:
        return bool(self._by_type.get(str(message_type)))

    def __iter__(self) -> Iterator[str]:
        return (name for name, facts in self._by_type.items() if facts)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowFacts:
    """The flow at the position of one event: a fact that rules are evaluated at, or a proposal with gates.

    `first_event` is the first event of the flow, `by_type` its facts in stream order, `asked` its proposals by event
    id. `contracts` decode them.
    """

    contracts: Contracts
    first_event: Recorded
    by_type: Mapping[str, Sequence[Recorded]]
    asked: Mapping[str, Proposal]
    at: Recorded

    @property
    def first(self) -> Message:
        """The first event."""
        return self.contracts.decode(self.first_event.event.data)

    @property
    def elapsed(self) -> timedelta:
        """The time from the first event to the current one."""
        return self.at.time - self.first_event.time

    def count(self, message_type: str) -> int:
        """The number of facts of a type."""
        return len(self.by_type.get(message_type, ()))

    def latest(self, message_type: str) -> Message | None:
        """The newest fact of a type, or None."""
        return Latest(self.contracts, self.by_type).get(message_type)

    def facts(self, message_type: str) -> Sequence[Message]:
        """All facts of a type, in stream order."""
        return [self.contracts.decode(each.event.data) for each in self.by_type.get(message_type, ())]

    def proposals(self, message_type: str) -> Sequence[Message]:
        """The proposals of a type that may still become facts, in stream order, without the current event."""
        return [
            self.contracts.decode(each.recorded.event.data)
            for event_id, each in self.asked.items()
            if each.undecided and each.recorded.type == message_type and event_id != self.at.event_id
        ]
