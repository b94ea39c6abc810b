"""The broker's accounts, users and permissions, derived from the templates."""

from handrail.mesh.permissions.permissions import (
    ADMIN,
    RESERVED,
    VIEWER,
    User,
    durable,
    inbox_prefix,
    matches,
    render,
    users,
)

__all__ = ["ADMIN", "RESERVED", "VIEWER", "User", "durable", "inbox_prefix", "matches", "render", "users"]
