"""Queues: which messages an agent has received, and how long an attempt may wait in its queue. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

JUST_NOW = timedelta(seconds=2)
"""How long a worker that receives an attempt late has to announce that it begins."""


@dataclass(frozen=True, slots=True)
class Queue:
    """The state of an agent's durable on the broker.

    `handed_out` is the stream position of the newest message ever delivered, `quiet` the time since the last delivery.
    `idle` is the time without a delivery and without a settled one; zero while a worker requests more.
    """

    handed_out: int
    idle: timedelta = timedelta()
    quiet: timedelta = timedelta.max


Queues = Mapping[str, Queue]
"""The inspected queues, by agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """An attempt that may wait to be begun: requested of this agent at `since`, by the message at `sequence`.

    `timeout` is how long it may take once begun, `until` how long it may wait. If it may wait only while its agent is
    at work, `patience` is how long the agent may begin nothing: the longest timeout of its steps. `queued` is set once
    the attempt was found in the queue, `begun` once a worker announced that it began, or has had time to.
    """

    agent: str
    sequence: int
    since: datetime
    timeout: timedelta
    until: datetime
    patience: timedelta | None = None
    queued: bool = False
    begun: bool = False

    def in_queue(self, queue: Queue) -> bool:
        """Whether no worker has received it yet, and it may wait."""
        return self.sequence > queue.handed_out and (self.patience is None or queue.idle <= self.patience)

    def may_have_left(self, queue: Queue) -> bool:
        """Whether a worker has received it, perhaps so recently that it is not late."""
        handed_out = self.sequence <= queue.handed_out
        return handed_out and not self.begun and (self.queued or queue.quiet <= JUST_NOW)

    def next_look(self, now: datetime) -> datetime:
        """When to look again. The interval grows with the wait, so that few looks are recorded."""
        return min(now + max(self.timeout, now - self.since), self.until)

    def last_look(self, now: datetime) -> datetime:
        """When it counts as late once a worker has it: one that waited gets its time, another may just have arrived."""
        return now + (self.timeout if self.queued else JUST_NOW)
