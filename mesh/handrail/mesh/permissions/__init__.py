"""The broker's accounts, users and permissions, derived from the templates.

Write the result of `render` to a file that each nats-server includes, and reload the servers when `users` change.
"""

from handrail.mesh.permissions.configuration import Credentials, places, render, users
from handrail.mesh.permissions.names import (
    ADMIN,
    MONITOR,
    RESERVED,
    RETENTION,
    SETUP,
    SYSTEM_ADMIN,
    VIEWER,
    VISIBILITY,
    durable,
    inbox_prefix,
    reader_durable,
)
from handrail.mesh.permissions.readers import Reader
from handrail.mesh.permissions.user import User, matches

__all__ = [
    "ADMIN",
    "MONITOR",
    "RESERVED",
    "RETENTION",
    "SETUP",
    "SYSTEM_ADMIN",
    "VIEWER",
    "VISIBILITY",
    "Credentials",
    "Reader",
    "User",
    "durable",
    "inbox_prefix",
    "matches",
    "places",
    "reader_durable",
    "render",
    "users",
]
