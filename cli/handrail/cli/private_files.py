"""Files that only their owner can read: passwords, tokens, the broker's configuration."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from handrail.mesh.permissions import Credentials

PASSWORD = "password"
"""The password file in a user's folder."""

_BYTES = 24


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, atomically; raises OSError if it can't be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def ensure_passwords(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Returns the password of each user from `<folder>/<user>/password`; creates a random one if it is missing.

    Each user has a separate folder, so that each process can be given its own and no other.
    """
    passwords = {}
    for name in names:
        path = folder / name / PASSWORD
        if not path.exists():
            write_private(path, secrets.token_urlsafe(_BYTES) + "\n")
        passwords[name] = path.read_text("utf-8").strip()
    return passwords


def credentials(passwords: Mapping[str, str]) -> dict[str, Credentials]:
    """Returns these passwords as credentials for the broker's configuration."""
    return {name: Credentials(password=password) for name, password in passwords.items()}
