"""A flow in hand: one flow as this replica read it, and as it is with what this replica appended since. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Set
from datetime import datetime, timedelta
from typing import NamedTuple

from handrail.coordinator.decide.certainty import bears_a_gap, depends_on_time
from handrail.mesh.flow import Flow
from handrail.mesh.fold import evolve
from handrail.mesh.wire.envelope import Entry, Recorded
from handrail.mesh.wire.subjects import Kind

_AFTER = timedelta(microseconds=1)
"""How much later than `now` an own append is taken to be stored: nothing that follows from it is due at `now`."""


class Delivered(NamedTuple):
    """A message that a durable delivered, and the sequence of the one before it in its flow; 0 if that is unknown."""

    recorded: Recorded
    right_after: int


class FlowInHand:
    """One flow. `replicated` tells whether FLOW has several copies, so that an own append may follow a gap."""

    __slots__ = ("_own", "_read", "_replicated", "_told", "armed", "decided_up_to", "flow", "seen")

    def __init__(self, flow: Flow, *, replicated: bool) -> None:
        self.flow = flow
        """The flow with this replica's appends."""
        self._read = flow
        self._replicated = replicated
        self._own: set[int] = set()
        self._told = (0, 0)
        self.decided_up_to = 0
        """The position up to which nothing is left to decide, but for what time brings."""
        self.armed: Mapping[str, datetime] | None = None
        """The timers that are armed at the broker; None if that is not known."""
        self.seen: set[int] = set()
        """Messages of the flow, up to its last sequence, that this replica appended or was handed."""

    @property
    def seen_whole(self) -> Set[int]:
        """The messages seen, if the flow's first is among them; else none.

        What is left of a flow without its first message never looks complete.
        """
        return self.seen if self.flow.first is not None and self.flow.first.sequence in self.seen else frozenset()

    @property
    def is_read(self) -> bool:
        """Whether it is as the stream has it, with the broker's times; else its last messages are own appends."""
        return self.flow is self._read

    @property
    def base(self) -> Flow:
        """The flow to read on from: what is stored later has a higher sequence than its last one."""
        return self._read if self._replicated else self.flow

    @property
    def last_read(self) -> Flow:
        """The flow as it was last read, with the broker's times."""
        return self._read

    @property
    def may_lack_events(self) -> bool:
        """Whether an event may have been stored before an own append without being in this flow."""
        return self._replicated and not self.is_read

    def is_new_to_agents(self) -> bool:
        """Tells, once, whether the flow was halted or moved to another version."""
        halted = 0 if self.flow.halt is None else self.flow.halt.since
        before, self._told = self._told, (halted, len(self.flow.migrations))
        return self._told not in (before, (0, 0))

    def covers(self, sequence: int) -> bool:
        """Tells whether the flow contains the message at this sequence, if the flow has one there."""
        return sequence <= self.base.last_sequence or sequence in self._own

    def must_be_read_before(self, entry: Entry) -> bool:
        """Tells whether the stream has to be read before this message may be appended."""
        if self.is_read:
            return False
        return (self.may_lack_events and not bears_a_gap(entry)) or depends_on_time(entry)

    def take_append(self, entry: Entry, sequence: int, *, now: datetime) -> bool:
        """Folds an own append that the broker stored at `sequence` after all of the flow, some time after `now`.

        Returns False, and does not fold it, if it must be read instead because its own time matters: rules look at the
        time of a released fact, and a second person must confirm an act in time.
        """
        self.decided_up_to = sequence
        is_fact = entry.address.kind is Kind.RELEASED
        if is_fact and self.flow.template.rules_on(entry.address.message_type):
            return False
        if not is_fact and entry.event.HasField("confirmation"):
            return False
        last = self.flow.last_time
        time = _AFTER + (now if last is None else max(now, last))
        self.flow = evolve(self.flow, Recorded(entry.address, entry.event, sequence, time))
        self._own.add(sequence)
        return True

    def take_delivered(self, delivered: Delivered) -> None:
        """Folds a delivered message if it is certain to be the next one of a flow that has begun."""
        recorded, right_after = delivered
        if self.flow.first is None:
            return  # the message may pin the flow to another version, which its earlier messages have to be folded with
        # A decision may move the flow to another version, which has to be read.
        if not self._replicated and right_after == self.flow.last_sequence and recorded.kind is not Kind.DECISION:
            self.take_news(evolve(self.flow, recorded))

    def take_read(self, flow: Flow) -> None:
        """Takes the flow as it was read, up to at least its last own append."""
        self.flow = self._read = flow
        self._own.clear()

    def take_news(self, flow: Flow) -> None:
        """Takes the flow with what was stored after `base`."""
        if self._replicated or self.is_read:
            self.take_read(flow)
        else:
            self.flow = flow
