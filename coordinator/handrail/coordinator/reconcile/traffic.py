"""Traffic: how much each agent sends, over ten seconds, and which agents send too much. Pure: times are given."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from datetime import timedelta

WINDOW = timedelta(seconds=10)
"""The time over which a rate is the average: what replicas handle within seconds is no flood."""

_CALM = 0.5
"""An excess ends below this part of the limit, so that an agent near the limit is reported once."""


def how_to_stop(agent: str) -> str:
    """The command that keeps an agent from the broker, without what depends on the installation."""
    return f"handrail nats-permissions --suspend {agent} --reload, with your --credentials and --out"


@dataclass(frozen=True, slots=True)
class Rate:
    """An amount per second."""

    messages: float
    bytes: float

    def exceeds(self, limit: Rate, part: float = 1.0) -> bool:
        """Whether either amount is more than this part of the limit."""
        return self.messages > part * limit.messages or self.bytes > part * limit.bytes


class _Sent:
    __slots__ = ("bytes", "messages")

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0

    def add(self, messages: int, size: int) -> None:
        self.messages += messages
        self.bytes += size


_Slot = defaultdict[str, _Sent]


class Traffic:
    """Counts what agents send. `excesses` closes a slot of time each time that it is called."""

    def __init__(self, limit: Rate) -> None:
        self.limit = limit
        self._slots: deque[tuple[float, _Slot]] = deque()
        self._open: _Slot = defaultdict(_Sent)
        self._excesses: dict[str, Rate] = {}

    def add(self, agent: str, size: int) -> None:
        """Counts one message of `size` bytes."""
        self._open[agent].add(1, size)

    def excesses(self, now: float) -> dict[str, Rate]:
        """Returns the agents above the limit, with their rates until `now`.

        An agent is reported until both its rates have fallen below half the limit. `now` are seconds of any clock that
        never goes back.
        """
        self._slots.append((now, self._open))
        self._open = defaultdict(_Sent)
        while self._slots[0][0] <= now - WINDOW.total_seconds():
            self._slots.popleft()
        self._excesses = {
            agent: rate
            for agent, rate in self._rates().items()
            if rate.exceeds(self.limit, _CALM if agent in self._excesses else 1.0)
        }
        return self._excesses

    def _rates(self) -> dict[str, Rate]:
        total: _Slot = defaultdict(_Sent)
        for _, slot in self._slots:
            for agent, sent in slot.items():
                total[agent].add(sent.messages, sent.bytes)
        seconds = WINDOW.total_seconds()
        return {agent: Rate(sent.messages / seconds, sent.bytes / seconds) for agent, sent in total.items()}
