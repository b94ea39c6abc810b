"""How often a handler began without ever reporting an end: it identifies a handler that kills its process.

Deliveries are not a measure: a message is redelivered after a lost ack, a hand-back or a read timeout, and everything
else in a process that died loses its delivery as well. Only recorded starts count.
"""

from __future__ import annotations

from dataclasses import dataclass

from handrail.mesh.flow.values import replace
from handrail.v1.failure_pb2 import StepProgress

POISON = "Poison"
"""The error class of an attempt with a handler that killed its process repeatedly."""

_OPEN_LIMIT = 3
"""The number of recorded starts without an end that make an attempt poison. The first start is not recorded, the second
runs beside others; the third and the fourth run alone, which is proof."""


@dataclass(frozen=True, slots=True)
class Starts:
    """The recorded starts of a step run, or of an undo, since its last report.

    `open` are the starts without an end. `suspect` is set if the previous attempt was poison, `silent` if it timed out.
    `counter` is the highest counter among the heartbeats of the current attempt.
    """

    open: int = 0
    suspect: bool = False
    silent: bool = False
    counter: int = 0

    @property
    def alone(self) -> bool:
        """Whether the next start must run alone in its process, so that it harms no other."""
        return self.suspect or self.open > 0

    @property
    def is_poison(self) -> bool:
        """Whether this attempt must not start again. For a suspect, one more death is enough."""
        return self.open >= (1 if self.suspect else _OPEN_LIMIT)

    @property
    def on_record(self) -> bool:
        """Whether to record the next start even on a first delivery."""
        return self.silent or self.suspect or self.open > 0

    def progressed(self, progress: StepProgress) -> Starts:
        """After a heartbeat of the current attempt."""
        return replace(self, open=self.open + progress.began, counter=max(self.counter, progress.counter))

    def handed_back(self) -> Starts:
        """After a worker reported that it ended the handler itself."""
        return replace(self, open=max(0, self.open - 1))

    def failed(self, error_class: str) -> Starts:
        """After a reported failure: the handler ended, unless the report says that it never did."""
        return Starts(suspect=error_class == POISON)

    def timed_out(self) -> Starts:
        """After a timeout: it is unknown whether the handler still runs."""
        return replace(self, silent=True)

    def next_attempt(self) -> Starts:
        """At the next attempt; its heartbeats are counted from the beginning."""
        return replace(self, counter=0)


NO_STARTS = Starts()
