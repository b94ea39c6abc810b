"""A setting: a flag, an environment variable and a default, in this order of precedence."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class SettingError(ValueError):
    """A setting has an invalid value. The text names the setting, the source of the value and the valid values."""


@dataclass(frozen=True, slots=True)
class Setting(Generic[T_co]):
    """One row of the table. `default` is text in the form of the flag; `parse` raises ValueError.

    A setting without a flag is a secret: a flag would be visible in the process list.
    """

    flag: str
    env: str
    default: str
    help: str
    parse: Callable[[str], T_co]
    metavar: str = "TEXT"

    @property
    def key(self) -> str:
        """The key of the setting in a mapping of flags: `nats_user` for --nats-user."""
        return self.env.removeprefix("HANDRAIL_").lower()


@dataclass(frozen=True, slots=True)
class Settings:
    """Resolves values: from flags by key (None: not given), then the environment, then the defaults of the table."""

    flags: Mapping[str, str | None]
    environment: Mapping[str, str]

    @classmethod
    def of_process(cls, flags: Mapping[str, str | None] | None = None) -> Settings:
        """Settings from these flags and the environment of this process."""
        return cls(flags or {}, os.environ)

    def value(self, setting: Setting[T]) -> T:
        """The value of a setting. An empty variable counts as unset. Raises SettingError if the value is invalid."""
        text, source = self.flags.get(setting.key), setting.flag
        if text is None:
            text, source = self.environment.get(setting.env) or None, setting.env
        if text is None:
            text, source = setting.default, "the default"
        try:
            return setting.parse(text)
        except ValueError as error:
            raise SettingError(f"{source}: {error}") from None


def secret(path: Path) -> str:
    """The content of a file with a password or token, without the line end. Raises SettingError if unreadable."""
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingError(f"{path} can't be read: {reason}") from None
