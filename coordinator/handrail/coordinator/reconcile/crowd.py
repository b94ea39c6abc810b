"""Crowd: whose messages fill a durable, so that others' wait behind them. Pure: it counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set

from handrail.mesh.wire.subjects import COORDINATOR

CROWDED = 1000
"""Undelivered messages. A replica handles as many in one or two seconds."""

CALM = 100
"""Undelivered messages: nobody has to wait any more."""

_TIMES = 4
"""An agent that sent so many times as much as another keeps that one waiting. If all send alike, there is too much of
everything, and nobody gains by being delivered twice. Whoever sent before, and now nothing, may wait behind the others.
"""

SAMPLE = 512
"""Deliveries of agents' messages that tell who sends the most. A worker answers up to some hundred messages one after
the other, and among few messages an agent may miss by chance.
"""

_KNOWN_AT_MOST = 10_000
"""Agents to remember: no more than that have a credential."""


class Crowd:
    """What was delivered since it was last judged, by agent, and how much was left.

    `known` are the agents of which something was delivered before; the crowd adds to them.
    """

    def __init__(self, known: set[str] | None = None) -> None:
        self.known = set() if known is None else known
        self.pending = 0
        """The number of undelivered messages, at the last delivery."""
        self.is_silent = True
        """Whether nothing was delivered since the last look."""
        self._delivered: Counter[str] = Counter()

    def add(self, agent: str, pending: int) -> None:
        """Counts a delivery, after which so many messages were left."""
        self._delivered[agent] += 1
        self.pending = pending
        self.is_silent = False

    @property
    def is_calm(self) -> bool:
        """Whether nearly nothing is left."""
        return self.pending <= CALM

    def look(self, left_out: Set[str] = frozenset()) -> str:
        """Returns the agent that sent the most of what was delivered since it was last judged, and far more than
        another; empty if not many are left, too few were delivered yet, or all sent alike. Of those `left_out` nothing
        is delivered.

        It is never the coordinator, whose messages others wait for.
        """
        self.is_silent = True
        del self._delivered[COORDINATOR]
        if self.pending > CROWDED and self._delivered.total() < SAMPLE:
            return ""
        delivered, self._delivered = self._delivered, Counter()
        if len(self.known) < _KNOWN_AT_MOST:
            self.known |= delivered.keys()
        if self.pending <= CROWDED or not delivered:
            return ""
        ranked = delivered.most_common()
        (agent, most), (_, least) = ranked[0], ranked[-1]
        if self.known - left_out - delivered.keys():
            least = 0
        return agent if len(ranked) == 1 or most >= _TIMES * least else ""
