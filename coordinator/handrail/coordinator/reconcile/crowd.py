"""Crowd: whose messages fill a durable, so that others' wait behind them. Pure: it counts."""

from __future__ import annotations

from collections import Counter

from handrail.mesh.wire.subjects import COORDINATOR

CROWDED = 1000
"""Undelivered messages. A replica handles as many in one or two seconds."""

CALM = 100
"""Undelivered messages: nobody has to wait any more."""

_TIMES = 4
"""An agent that sent so many times as much as another keeps that one waiting. If all send alike, there is too much of
everything, and nobody gains by being delivered twice.
"""


class Crowd:
    """What was delivered since the last look, by agent, and how much was left."""

    def __init__(self) -> None:
        self.pending = 0
        """The number of undelivered messages, at the last delivery."""
        self._delivered: Counter[str] = Counter()

    def add(self, agent: str, pending: int) -> None:
        """Counts a delivery, after which so many messages were left."""
        self._delivered[agent] += 1
        self.pending = pending

    @property
    def is_silent(self) -> bool:
        """Whether nothing was delivered since the last look."""
        return not self._delivered

    @property
    def is_calm(self) -> bool:
        """Whether nearly nothing is left."""
        return self.pending <= CALM

    def look(self) -> str:
        """Returns the agent that sent the most of what was delivered since the last look, and far more than another;
        empty if not many are left, or all sent alike.

        It is never the coordinator, whose messages others wait for.
        """
        delivered, self._delivered = self._delivered, Counter()
        del delivered[COORDINATOR]
        if self.pending <= CROWDED or not delivered:
            return ""
        ranked = delivered.most_common()
        (agent, most), (_, least) = ranked[0], ranked[-1]
        return agent if len(ranked) == 1 or most >= _TIMES * least else ""
