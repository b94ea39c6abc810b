"""Which extra of the distribution a command needs. A plain install has what an agent needs."""

from __future__ import annotations

_EXTRAS = {
    "coordinator": "coordinator",
    "dev": "dev",
    "visibility": "visibility",
    "archive": "visibility",
    "console": "console",
}
"""By command; all others are in `cli`."""

_OF_MODULES = {"pyarrow": "export"}
"""By module, for those of which a part of a command alone has need."""

_MODULES = frozenset(
    {
        *("grpc", "grpc_channelz", "grpc_health", "grpc_reflection", "grpc_status"),
        "argcomplete",
        *("bcrypt", "cryptography", "jwt"),
        *("psycopg", "pyarrow", "sqlalchemy", "zstandard"),
        *("authlib", "jinja2", "joserfc", "starlette", "uvicorn"),
    }
)
"""The modules that come with an extra only."""


def advice(error: ModuleNotFoundError, command: str) -> str | None:
    """Returns what to install, in one line, if the missing module comes with an extra; None for any other module."""
    module = (error.name or "").partition(".")[0]
    if module not in _MODULES:
        return None
    extra = _OF_MODULES.get(module) or _EXTRAS.get(command, "cli")
    return f"{command} needs the module {module}: python -m pip install 'handrail[{extra}]'"
