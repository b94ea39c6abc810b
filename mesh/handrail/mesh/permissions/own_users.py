"""Handrail's own users of the broker, each with the least rights that its part needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from handrail.mesh.permissions.accounts import (
    FOLLOWING,
    HANDRAIL,
    HINT,
    READ_BY_VIEWERS,
    RETAINING,
    RUN_TIME,
    SETTING_UP,
    SYSTEM,
    VIEWERS,
)
from handrail.mesh.permissions.names import (
    ADMIN,
    MONITOR,
    RETENTION,
    SETUP,
    SYSTEM_ADMIN,
    VIEWER,
    VISIBILITY,
    inbox_prefix,
)
from handrail.mesh.permissions.services import reading
from handrail.mesh.permissions.user import User
from handrail.mesh.wire.subjects import COORDINATOR

_API = "$JS.API"

STREAMS = (*READ_BY_VIEWERS, "ABSENCE", "AUDIT", "DELEGATION", "KV_leases")
"""The streams that belong to no agent."""


def own_users(agents: Iterable[str]) -> tuple[User, ...]:
    """Handrail's own users. The permissions of coordinator and viewer depend on the agents, those of the others on
    nothing.
    """
    quarantines = sorted(f"QUARANTINE_{agent}" for agent in agents)
    everybody = (_setup(), _retention(), _visibility(), _monitor(), _admin(), _system_admin())
    return (_coordinator(quarantines), _viewer(quarantines), *everybody)


def _coordinator(quarantines: Iterable[str]) -> User:
    """Run time: creates what is missing, and updates and deletes no stream.

    The broker's request that creates a durable also changes one that exists, and no subject tells the two apart. An
    activation needs it: the durables of the agents get the subjects of the new version.
    """
    creating = f"{_API}.STREAM.CREATE"
    asks = (each for each in RUN_TIME.services if each != f"{creating}.*")
    creates = (f"{creating}.{stream}" for stream in (*STREAMS, *quarantines))
    # Replicas hand each other deliveries within their account.
    return User(COORDINATOR, RUN_TIME, (*asks, *creates, "own.>", HINT), (f"{inbox_prefix(COORDINATOR)}.>", "own.>"))


def _setup() -> User:
    """Set-up: creates and updates streams and durables. It can publish no message, and delete none."""
    return User(SETUP, SETTING_UP, tuple(SETTING_UP.services), (f"{inbox_prefix(SETUP)}.>",))


def _retention() -> User:
    """Retention: purges FLOW, and records what it does. It may purge no other stream, and change or delete none.

    A subject tells the stream of a purge and not what is purged of it: the broker can't limit it to finished flows.
    """
    return User(RETENTION, RETAINING, tuple(RETAINING.services), (f"{inbox_prefix(RETENTION)}.>",))


def _visibility() -> User:
    """The archive and the index: reads FLOW whole and in order, and says nothing."""
    return User(VISIBILITY, FOLLOWING, tuple(FOLLOWING.services), (f"{inbox_prefix(VISIBILITY)}.>",))


def _viewer(quarantines: Sequence[str]) -> User:
    asks = (
        *reading(*READ_BY_VIEWERS),
        *(f"{_API}.STREAM.INFO.{stream}" for stream in quarantines),
        *(f"{_API}.DIRECT.GET.{stream}{rest}" for stream in quarantines for rest in ("", ".>")),
        *(f"{_API}.CONSUMER.INFO.{stream}.*" for stream in ("FLOW", "TIMER")),
    )
    return User(VIEWER, VIEWERS, asks, (f"{inbox_prefix(VIEWER)}.>",))


def _monitor() -> User:
    asks = ("$SYS.REQ.SERVER.PING", "$SYS.REQ.SERVER.PING.*", "$SYS.REQ.ACCOUNT.PING.*")
    return User(MONITOR, SYSTEM, asks, (f"{inbox_prefix(MONITOR)}.>",))


def _admin() -> User:
    return User(ADMIN, HANDRAIL, (">",), (">",))


def _system_admin() -> User:
    return User(SYSTEM_ADMIN, SYSTEM, (">",), (">",))
