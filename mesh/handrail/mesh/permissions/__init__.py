"""Who may say what on the broker."""

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
