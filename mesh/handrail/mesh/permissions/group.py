"""A group of equal accounts of the broker, and what passes between them and others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from handrail.mesh.permissions.services import Answers

STREAMS = "HANDRAIL"
"""The account with the streams."""


class Limits(NamedTuple):
    """What the users of one account may use together; the payload is in bytes."""

    connections: int
    subscriptions: int
    payload: int = 1 << 20


@dataclass(frozen=True, slots=True)
class Group:
    """A number of equal accounts, and everything that passes between each and the one with the streams.

    User permissions can't exceed it, even if they are wrong: neither to `released`, `decision`, `retry` and `undo`, nor
    to timers and templates.
    """

    name: str
    number: int = 1
    services: Mapping[str, Answers] = field(default_factory=dict)
    """Subjects on which its users may ask or publish."""
    told: tuple[str, ...] = ()
    """Subjects on which the coordinator's messages reach its users."""
    limits: Limits | None = None

    @property
    def accounts(self) -> tuple[str, ...]:
        """The names of its accounts, in the order of their places."""
        return (self.name,) if self.number == 1 else tuple(f"{self.name}_{n}" for n in range(1, self.number + 1))

    def account(self, place: int) -> str:
        """The account at a place, counted from 0. Beyond the last, places share accounts."""
        return self.accounts[place % self.number]
