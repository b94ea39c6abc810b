"""One-click identities: tokens in a folder, one for each file, for development on one machine."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_MOST = 20
_MOST_BYTES = 16 << 10


def names(folder: Path | None) -> list[str]:
    """The names of the identities, at most 20, in alphabetical order; none without a folder."""
    if folder is None or not folder.is_dir():
        return []
    return sorted(each.name for each in folder.iterdir() if _NAME.fullmatch(each.name) and each.is_file())[:_MOST]


def token(folder: Path | None, name: str) -> str:
    """The token of an identity; empty if there is none of this name, or it can't be read."""
    if folder is None or name not in names(folder):
        return ""
    try:
        return (folder / name).read_bytes()[:_MOST_BYTES].decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
