"""A user of the broker."""

from __future__ import annotations

from dataclasses import dataclass

from handrail.mesh.permissions.group import Group


@dataclass(frozen=True, slots=True)
class User:
    """A user of the broker, and the subjects it may publish and subscribe to (NATS wildcards)."""

    name: str
    group: Group
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]

    def may_publish(self, subject: str) -> bool:
        """Whether this user may publish on this literal subject."""
        return any(matches(pattern, subject) for pattern in self.publish)

    def may_subscribe(self, subject: str) -> bool:
        """Whether this user may receive messages on this literal subject."""
        return any(matches(pattern, subject) for pattern in self.subscribe)


def matches(pattern: str, subject: str) -> bool:
    """Whether a literal subject matches a pattern with `*` (one token) and `>` (one or more, at the end)."""
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(given) <= len(wanted):
            return False
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(w in ("*", g) for w, g in zip(wanted, given, strict=True))
