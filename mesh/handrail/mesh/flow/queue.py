"""Queues: what an agent has been handed out, and for how long an attempt that it was not may wait. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

JUST_NOW = timedelta(seconds=2)
"""How long a worker that was handed an attempt late has to say that it begins it."""


@dataclass(frozen=True, slots=True)
class Queue:
    """An agent's durable, as the broker has it.

    `handed_out` is the stream position of the newest message that was ever handed out, `quiet` how long nothing was.
    `idle` is how long, besides, nothing was settled; no time at all while a worker asks for more.
    """

    handed_out: int
    idle: timedelta = timedelta()
    quiet: timedelta = timedelta.max


Queues = Mapping[str, Queue]
"""The queues that somebody looked at, by agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """An attempt that may wait to be begun: asked for at `since`, by the message at `sequence`, of this agent.

    `timeout` is what it may take once it is begun, `until` how long it may wait. Where it may wait only while its agent
    is at work, `patience` is how long the agent may begin nothing: the longest that any of its steps may take.
    `queued` is set once it was found in the queue, `begun` once a worker said that it began it, or has had time to.
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
        """Whether no worker ever had it, and it may wait for one."""
        return self.sequence > queue.handed_out and (self.patience is None or queue.idle <= self.patience)

    def may_have_left(self, queue: Queue) -> bool:
        """Whether a worker has it, and may have it since so short a time that it is not late."""
        handed_out = self.sequence <= queue.handed_out
        return handed_out and not self.begun and (self.queued or queue.quiet <= JUST_NOW)

    def next_look(self, now: datetime) -> datetime:
        """When to look again. The longer it has waited the longer it is left, so that few looks are on record."""
        return min(now + max(self.timeout, now - self.since), self.until)

    def last_look(self, now: datetime) -> datetime:
        """When it is late where a worker has it: one that waited has its time, another may be just handed out."""
        return now + (self.timeout if self.queued else JUST_NOW)
