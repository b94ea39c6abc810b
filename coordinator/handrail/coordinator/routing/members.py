"""The live replicas, as one of them knows them: each says every second that it is there. Pure: time is an argument."""

from __future__ import annotations

SILENCE = 3.5
"""Seconds: a replica that was not heard of for as long counts as gone."""


class Members:
    """The live replicas. `own` is this one, which is always among them."""

    def __init__(self, own: str) -> None:
        self.own = own
        self._heard: dict[str, float] = {}
        self.all: tuple[str, ...] = (own,)
        """This replica and all others that are there, sorted."""

    def hear(self, member: str, now: float) -> bool:
        """A replica says that it is there. Returns whether it is new."""
        if member == self.own:
            return False
        is_new = member not in self._heard
        self._heard[member] = now
        if is_new:
            self._arrange()
        return is_new

    def lose(self, member: str) -> bool:
        """A replica says that it goes. Returns whether it was there."""
        was_there = self._heard.pop(member, None) is not None
        self._arrange()
        return was_there

    def expire(self, now: float) -> list[str]:
        """Takes out the replicas that were silent for too long, and returns them."""
        gone = [member for member, heard in self._heard.items() if now - heard > SILENCE]
        for member in gone:
            self.lose(member)
        return gone

    def _arrange(self) -> None:
        self.all = tuple(sorted((self.own, *self._heard)))
