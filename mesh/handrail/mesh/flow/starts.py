"""How often a handler was begun and not heard of again: what tells the one that kills its process from its neighbours.

Deliveries are no measure: a message is delivered again after a lost ack, a hand-back or a read that timed out, and
whatever else was in a process that died had its delivery spent too. Only what the stream records counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from handrail.mesh.flow.values import replace
from handrail.v1.failure_pb2 import StepProgress

POISON = "Poison"
"""The error class of an attempt whose handler killed its process again and again."""

_OPEN_LIMIT = 3
"""Recorded starts without an end that make an attempt poison. The first start is not recorded, the second has others
beside it; the third and the fourth, both alone, are proof."""


@dataclass(frozen=True, slots=True)
class Starts:
    """The recorded starts of a step run, or of an undo, since it was last heard of.

    `open` are those that came to no end. `suspect` is set where the attempt before was poison, `silent` where it timed
    out. `counter` is the highest one among the heartbeats of the current attempt.
    """

    open: int = 0
    suspect: bool = False
    silent: bool = False
    counter: int = 0

    @property
    def alone(self) -> bool:
        """Whether the next start is to have nothing beside it in its process, so that it harms nobody else."""
        return self.suspect or self.open > 0

    @property
    def is_poison(self) -> bool:
        """Whether it is not to be started again in this attempt. Once known as poison, one more death is enough."""
        return self.open >= (1 if self.suspect else _OPEN_LIMIT)

    @property
    def on_record(self) -> bool:
        """Whether the next start is to be recorded even on a first delivery."""
        return self.silent or self.suspect or self.open > 0

    def progressed(self, progress: StepProgress) -> Starts:
        """After a heartbeat of the current attempt."""
        return replace(self, open=self.open + progress.began, counter=max(self.counter, progress.counter))

    def handed_back(self) -> Starts:
        """After a worker said that it ended the handler itself."""
        return replace(self, open=max(0, self.open - 1))

    def failed(self, error_class: str) -> Starts:
        """After a reported failure: the handler came to an end, unless it is the report that it never did."""
        return Starts(suspect=error_class == POISON)

    def timed_out(self) -> Starts:
        """After a time-out: nobody knows whether the handler still runs."""
        return replace(self, silent=True)

    def next_attempt(self) -> Starts:
        """When the next attempt is begun; its heartbeats are counted anew."""
        return replace(self, counter=0)


NO_STARTS = Starts()
