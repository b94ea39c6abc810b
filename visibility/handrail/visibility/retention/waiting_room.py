"""Flows between their announcement and their purge. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta

from handrail.visibility.archive.verdict import Verdict

WAIT = timedelta(minutes=1)
"""A call that begins a flow may have looked at KEY just before the flow was announced there."""

_MOST = 20_000
"""The most flows that wait; some 30 MB."""


class WaitingRoom:
    """Keeps verdicts until their time has come, in the order in which they came."""

    def __init__(self) -> None:
        self._new: list[Verdict] = []
        self._waiting: deque[tuple[datetime, Verdict]] = deque()
        self._firsts: set[int] = set()

    def __contains__(self, first_sequence: int) -> bool:
        return first_sequence in self._firsts

    @property
    def is_full(self) -> bool:
        """Whether no more should be announced for now."""
        return len(self._firsts) >= _MOST

    def take(self, verdicts: Iterable[Verdict]) -> None:
        """Takes verdicts on flows that were announced. Their time counts from the next `start`."""
        for verdict in verdicts:
            self._new.append(verdict)
            self._firsts.add(verdict.first)

    def start(self, *, now: datetime) -> None:
        """Begins the time of those that were taken. `now` is the broker's time, later than their announcements."""
        self._waiting.extend((now + WAIT, each) for each in self._new)
        self._new.clear()

    def next(self, most: int, *, now: datetime) -> list[Verdict]:
        """Gives back, and forgets, those that have waited long enough."""
        found: list[Verdict] = []
        while self._waiting and self._waiting[0][0] <= now and len(found) < most:
            verdict = self._waiting.popleft()[1]
            self._firsts.discard(verdict.first)
            found.append(verdict)
        return found
