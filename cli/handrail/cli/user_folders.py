"""Where commands keep what they remember for their user, as the XDG Base Directory Specification names the folders."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from handrail.cli.exit_codes import CommandError, Exit


def state_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Returns the folder for logins and what was printed lately; it may not exist yet. Raises CommandError if
    nothing names it.
    """
    return _folder(environment, "XDG_STATE_HOME", ".local/state")


def config_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Returns the folder for what the user has set; it may not exist yet. Raises CommandError if nothing names it."""
    return _folder(environment, "XDG_CONFIG_HOME", ".config")


def file_name(address: str) -> str:
    """Returns a name for a file that belongs to a coordinator's address."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", address)


def _folder(environment: Mapping[str, str], variable: str, default: str) -> Path:
    named = environment.get(variable, "")
    if named.startswith("/"):  # a relative one is invalid
        return Path(named) / "handrail"
    try:
        return Path.home() / default / "handrail"
    except RuntimeError:
        raise CommandError(f"this user has no home folder: set HOME or {variable}", Exit.USAGE) from None
