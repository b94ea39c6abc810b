"""Installed Python distributions: environments, their metadata folders, and how to read them safely.

Installed files are not trusted: a file is read only if it is a regular file inside its environment, up to a limit.
"""

import email
import email.policy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from functools import cached_property
from pathlib import Path

from compliance.v1.compliance_pb2 import Distribution

READ_LIMIT = 4 * 1024 * 1024
"""Bytes. A larger metadata file is not read: the largest known ones have some hundred kilobytes."""

UNKNOWN_VERSION = "unknown"

_FOLDER = re.compile(r"^(?P<name>[^/\\]+?)(-(?P<version>[^/\\-]+))?(-py[0-9.]+)?\.(dist|egg)-info$")
_SITE_PACKAGES = re.compile(r"(^|/)(lib|lib64)/python[0-9.]+t?/(site|dist)-packages$|(^|/)Lib/site-packages$")


class Unreadable(Exception):
    """A file of a distribution can't be read; the text names the file and the reason."""


@dataclass(frozen=True)
class Environment:
    """A folder of installed packages, and its name in flows."""

    name: str
    site: Path

    @cached_property
    def root(self) -> Path:
        """The folder of the whole environment: a distribution's scripts are not in site-packages."""
        found = _SITE_PACKAGES.search(self._site.as_posix())
        return self._site.parents[len(found[0].strip("/").split("/")) - 1] if found else self._site

    @cached_property
    def _site(self) -> Path:
        return self.site.resolve()

    def locate(self, path: str) -> Path | None:
        """The file of a path in a RECORD; None if it leads out of the environment, directly or by links."""
        if "\0" in path:
            return None
        file = self._site / path
        try:
            return file if file.resolve().is_relative_to(self.root) else None
        except (OSError, RuntimeError):  # a loop of links
            return None

    def distributions(self) -> Iterator["Installed"]:
        """Every distribution, by name and version. If folders claim the same ones, the first folder by name counts.

        Raises:
            OSError: if the folder can't be read.
        """
        found: dict[tuple[str, str], Installed] = {}
        for folder in sorted(self.site.iterdir()):
            installed = self.at(folder.name)
            if installed is not None:
                key = (installed.distribution.name, installed.distribution.version)
                found.setdefault(key, installed)
        for key in sorted(found):
            yield found[key]

    def at(self, folder: str) -> "Installed | None":
        """The distribution with its metadata in this folder; None if it is not a metadata folder."""
        match = _FOLDER.match(folder)
        name = normalized(match["name"]) if match else ""
        if match is None or not name or not folder.isprintable():
            return None
        version = match["version"] or UNKNOWN_VERSION
        return Installed(self, Distribution(name=name, version=version, environment=self.name, folder=folder))


@dataclass(frozen=True, slots=True)
class Installed:
    """A distribution in an environment."""

    environment: Environment
    distribution: Distribution

    @property
    def folder(self) -> Path:
        """The folder of its metadata; in the old format it may be a single file."""
        return self.environment.site / self.distribution.folder

    @property
    def key(self) -> str:
        """The business key of its flow."""
        return key(self.distribution)

    def read(self, name: str) -> str | None:
        """A text file of its metadata; None if it does not exist.

        Raises:
            Unreadable: if it leads out of the environment, is not a regular file, is too large, or is not UTF-8.
        """
        return read_text(self.environment, f"{self.distribution.folder}/{name}")

    def metadata(self) -> Message:
        """Its core metadata: https://packaging.python.org/en/latest/specifications/core-metadata/

        Raises:
            Unreadable: if no file can be read.
        """
        if self.folder.is_file():
            text = read_text(self.environment, self.distribution.folder)
        else:
            text = self.read("METADATA")
            text = self.read("PKG-INFO") if text is None else text
        if text is None:
            raise Unreadable(f"{self.distribution.folder} has neither METADATA nor PKG-INFO")
        return email.message_from_string(text, policy=email.policy.compat32)


def read_text(environment: Environment, path: str) -> str | None:
    """A text file of an environment; see `Installed.read`."""
    file = environment.locate(path)
    try:
        if file is None:
            raise Unreadable(f"{path} leads out of the environment")
        if not file.exists():
            return None
        if not file.is_file():
            raise Unreadable(f"{path} is not a regular file")
        if file.stat().st_size > READ_LIMIT:
            raise Unreadable(f"{path} has more than {READ_LIMIT} bytes")
        return file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(f"{path} is not UTF-8, at byte {error.start}") from error
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from error


def normalized(name: str) -> str:
    """A name in its normalized form: https://packaging.python.org/en/latest/specifications/name-normalization/"""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def key(distribution: Distribution) -> str:
    """The business key of a distribution's flow."""
    return f"{distribution.name}=={distribution.version}@{distribution.environment}"
