"""The names of the broker's users, and the names that belong to a user."""

from __future__ import annotations

import re

from handrail.mesh.errors import HandrailError
from handrail.mesh.wire.subjects import COORDINATOR, NAME
from handrail.v1.error_reason_pb2 import ErrorReason

ADMIN = "admin"
"""For repair by hand, with every right; no part of Handrail uses it."""

SETUP = "setup"
"""Creates and updates streams and durables; publishes no message."""

RETENTION = "retention"
"""Purges the messages of finished flows from FLOW, and records it."""

VISIBILITY = "visibility"
"""Follows all flows, for the archive and the index; its durable on FLOW is that of a reader of this name."""

VIEWER = "viewer"
"""Reads every stream."""

MONITOR = "monitor"
"""Asks the servers for their health and statistics, through the system account."""

SYSTEM_ADMIN = "sys"
"""Has every right in the system account, such as reloading the servers' configuration."""

RESERVED = frozenset({COORDINATOR, ADMIN, SETUP, RETENTION, VISIBILITY, VIEWER, MONITOR, SYSTEM_ADMIN})
"""Names that agents and readers can't have."""


def durable(agent: str) -> str:
    """The name of the durable consumer on FLOW that all workers of an agent share."""
    return f"agent-{agent}"


def reader_durable(reader: str) -> str:
    """The name of the durable consumer on FLOW of a reader."""
    return f"reader-{reader}"


def inbox_prefix(user: str) -> str:
    """The inbox prefix of a user. No other user may subscribe to it."""
    return f"_INBOX_{user}"


def require_name(name: str, label: str) -> None:
    """Raises TEMPLATE_REFUSED unless an agent or reader (`label`) may have this name."""
    require_token(name, NAME, label)
    if name in RESERVED:
        raise HandrailError(
            ErrorReason.ERROR_REASON_TEMPLATE_REFUSED,
            f'no {label} may have the name "{name}": it is a user of the broker with other permissions',
            agent=name,
        )


def require_token(value: str, pattern: re.Pattern[str], label: str) -> None:
    """Raises TEMPLATE_REFUSED unless a value (`label`) can be part of a subject."""
    if not pattern.fullmatch(value):
        raise HandrailError(
            ErrorReason.ERROR_REASON_TEMPLATE_REFUSED,
            f'the {label} "{value[:80]}" can\'t be part of a subject: correct it',
            name=value[:80],
        )
