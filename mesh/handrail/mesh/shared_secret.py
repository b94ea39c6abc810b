"""The secret that coordinators and visibility share. A call carries it as a bearer token."""

from __future__ import annotations

import hmac
import re
import secrets
from pathlib import Path

from handrail.mesh.reread_file import RereadFile, Unreadable

METADATA = "authorization"
"""The key of a call's metadata that carries the secret."""

_SCHEME = "Bearer "
_SECRET = re.compile(rb"[A-Za-z0-9_-]{32,512}")


def new_secret() -> str:
    """Returns a secret that nobody can guess."""
    return secrets.token_urlsafe(32)


class SharedSecret:
    """A secret in a file, read anew when the file changes. Without a readable one, nobody is let in."""

    def __init__(self, path: Path) -> None:
        self._file = RereadFile(path, _parsed)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns the metadata of a call that carries the secret. Raises Unreadable."""
        return ((METADATA, f"{_SCHEME}{self._file.value().decode()}"),)

    def admits(self, given: str | bytes) -> bool:
        """Tells whether a call with this metadata knows the secret, in a time that says nothing about it."""
        try:
            expected = _SCHEME.encode() + self._file.value()
        except Unreadable:
            return False
        return hmac.compare_digest(given.encode() if isinstance(given, str) else given, expected)


def _parsed(data: bytes) -> bytes:
    secret = data.strip()
    if _SECRET.fullmatch(secret) is None:
        raise ValueError("holds no secret: 32 to 512 letters, digits, - and _ are needed")
    return secret
