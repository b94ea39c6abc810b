"""The caller: the identity that a verified token gives its bearer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified identity. `agent` is the agent that it may speak for; empty for people."""

    subject: str
    roles: frozenset[str] = frozenset()
    agent: str = ""
