"""Handrail's own users of the broker, each with the least rights that its part needs."""

from __future__ import annotations

from collections.abc import Iterable

from handrail.mesh.permissions.accounts import HANDRAIL, READ_BY_VIEWERS, STATISTICS, SYSTEM, VIEWERS
from handrail.mesh.permissions.names import ADMIN, MONITOR, RETENTION, SETUP, SYSTEM_ADMIN, VIEWER, inbox_prefix
from handrail.mesh.permissions.services import reading
from handrail.mesh.permissions.user import User
from handrail.mesh.wire.subjects import COORDINATOR

_API = "$JS.API"


def own_users(agents: Iterable[str]) -> tuple[User, ...]:
    """Handrail's own users. The viewer's permissions depend on the agents, those of the others on nothing."""
    return (_coordinator(), _setup(), _retention(), _viewer(agents), _monitor(), _admin(), _system_admin())


def _coordinator() -> User:
    """Run time: creates what is missing, and updates and deletes no stream.

    The broker's request that creates a durable also changes one that exists, and no subject tells the two apart. An
    activation needs it: the durables of the agents get the subjects of the new version.
    """
    return User(
        COORDINATOR,
        HANDRAIL,
        (
            *("flow.>", "timer.>", "template.>", "quarantine.>", "key.>", "absence.>", "delegation.>", "$KV.leases.>"),
            f"{_API}.INFO",
            *(f"{_API}.STREAM.{verb}" for verb in ("CREATE.*", "INFO.*", "MSG.GET.*", "NAMES", "PURGE.TIMER")),
            *(f"{_API}.DIRECT.GET.*", f"{_API}.DIRECT.GET.*.>"),
            *(f"{_API}.CONSUMER.{verb}" for verb in ("CREATE.*", "CREATE.*.*", "INFO.*.*", "MSG.NEXT.*.*")),
            *("$JS.ACK.>", STATISTICS),
        ),
        (f"{inbox_prefix(COORDINATOR)}.>", "flow.>"),
    )


def _setup() -> User:
    """Set-up: creates and updates streams and durables. It can publish no message, and delete none."""
    return User(
        SETUP,
        HANDRAIL,
        (
            f"{_API}.INFO",
            *(f"{_API}.STREAM.{verb}" for verb in ("CREATE.*", "UPDATE.*", "INFO.*", "NAMES", "MSG.GET.TEMPLATE")),
            *(f"{_API}.DIRECT.GET.TEMPLATE", f"{_API}.DIRECT.GET.TEMPLATE.>"),
            *(f"{_API}.CONSUMER.{verb}" for verb in ("CREATE.*.*", "INFO.*.*")),
        ),
        (f"{inbox_prefix(SETUP)}.>",),
    )


def _retention() -> User:
    """Retention: purges FLOW, and reads what tells whether a flow is finished."""
    return User(
        RETENTION,
        HANDRAIL,
        (*reading("FLOW", "TEMPLATE", "KEY"), f"{_API}.CONSUMER.INFO.FLOW.*", f"{_API}.STREAM.PURGE.FLOW"),
        (f"{inbox_prefix(RETENTION)}.>",),
    )


def _viewer(agents: Iterable[str]) -> User:
    quarantines = sorted(f"QUARANTINE_{agent}" for agent in agents)
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
