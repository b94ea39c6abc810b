"""Contexts: the coordinators that a user calls, each with a name, and the one that is called unless a command says
otherwise.

They are in one file of the user's, which nobody else can read. It names files with tokens and keys, and holds none.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.private_files import write_private
from handrail.cli.user_folders import config_folder
from handrail.mesh import settings as table
from handrail.mesh.setting import Setting, Settings

FIELDS: tuple[Setting[object], ...] = (
    table.ADDRESS,
    table.TLS,
    table.CA,
    table.CLIENT_CERT,
    table.CLIENT_KEY,
    table.TOKEN_FILE,
)
"""The settings that a context can have; it always has an address."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

Values = Mapping[str, str]
"""The values of a context, by the keys of its settings."""


@dataclass(slots=True)
class Contexts:
    """All contexts of a user, by name. `current` is empty if none is in use."""

    current: str = ""
    by_name: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls) -> Contexts:
        """Reads the user's file; raises CommandError if there is one that can't be used."""
        path = config_folder() / "contexts.json"
        try:
            stored = json.loads(path.read_text("utf-8"))
            return cls(str(stored["current"]), {str(name): _values(each) for name, each in stored["contexts"].items()})
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise CommandError(f"{path} can't be read: {error.strerror}", Exit.USAGE) from None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise CommandError(f"{path} holds no contexts: correct it, or delete it", Exit.USAGE) from None

    def write(self) -> None:
        """Stores them; raises CommandError if the file can't be written."""
        path = config_folder() / "contexts.json"
        try:
            write_private(path, json.dumps({"current": self.current, "contexts": self.by_name}, indent=2) + "\n")
        except OSError as error:
            raise CommandError(f"{path} can't be written: {error.strerror}") from None

    def named(self, name: str) -> Values:
        """Returns the values of a context; raises CommandError if the name is unknown."""
        if name not in self.by_name:
            from handrail.cli.parser import similar

            others = ", ".join(sorted(self.by_name))
            other = f"; there is {others}" if others else "; add one with handrail context set"
            known = similar(name, self.by_name) or other
            raise CommandError(f'there is no context "{name}"{known}', Exit.NOT_FOUND)
        return self.by_name[name]


def checked_name(name: str) -> str:
    """Returns the name of a new context; raises CommandError if it can't be one."""
    if not _NAME.fullmatch(name):
        raise CommandError(f'"{name}" is no name of a context: take letters, digits, dots and hyphens', Exit.USAGE)
    return name


def with_context(settings: Settings) -> Settings:
    """Returns settings in which the chosen context stands behind flags and environment.

    If these name another address, nothing of the context in use counts: its token and its keys are for its own
    coordinator. Nor is it missed then: a file that can't be used stops only commands that need it. Raises CommandError
    if the context does not exist, or if a command names a context and another address.
    """
    name = settings.value(table.CONTEXT)
    address = settings.flags.get(table.ADDRESS.key) or settings.environment.get(table.ADDRESS.env)
    try:
        context = _chosen(name)
    except CommandError:
        if name or not address:
            raise
        return settings
    if context is None:
        return settings
    if address and address != context[table.ADDRESS.key]:
        if not name:
            return settings
        raise CommandError(
            f"context {name} is {context[table.ADDRESS.key]}, and {table.ADDRESS.flag} or {table.ADDRESS.env} says "
            f"{address}: leave one of them out",
            Exit.USAGE,
        )
    given = {name: value for name, value in settings.environment.items() if value}
    behind = {each.env: context[each.key] for each in FIELDS if each.key in context}
    return Settings(settings.flags, {**behind, **given})


def value_of(setting: Setting[object], text: str) -> str:
    """Returns a value as a context keeps it, with the path of a file from the root; raises SettingError."""
    Settings({setting.key: text}, {}).value(setting)
    return text if setting in (table.ADDRESS, table.TLS) else os.path.abspath(os.path.expanduser(text))


def _chosen(name: str) -> Values | None:
    """Returns the context of this name, or without a name the one in use; None if none is. Raises CommandError."""
    contexts = Contexts.read()
    chosen = name or contexts.current
    return contexts.named(chosen) if chosen else None


def _values(stored: dict[str, str]) -> dict[str, str]:
    """Returns the values of one context; raises KeyError if it has no address."""
    values = {each.key: str(stored[each.key]) for each in FIELDS if each.key in stored}
    if not values[table.ADDRESS.key]:
        raise KeyError(table.ADDRESS.key)
    return values
