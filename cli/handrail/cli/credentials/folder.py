"""The folder with the folders of all users."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from handrail.cli.credentials.user_folder import UserFolder
from handrail.cli.private_files import write_private
from handrail.mesh import permissions
from handrail.mesh.permissions import VISIBILITY, Reader, User
from handrail.mesh.permissions.accounts import AGENTS, READERS
from handrail.mesh.shared_secret import new_secret
from handrail.mesh.wire.subjects import COORDINATOR
from handrail.v1.template_pb2 import FlowTemplate


class Configuration(NamedTuple):
    """The broker's configuration of accounts and users, and the names of users by what is special about them."""

    text: str
    users: tuple[str, ...]
    suspended: tuple[str, ...]
    with_passwords: tuple[str, ...]


class CredentialsFolder:
    """What is kept of all users. Methods raise OSError if a file can't be read or written, CommandError if one holds
    something else than it should, and TEMPLATE_REFUSED for names that can't be users.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def user(self, name: str) -> UserFolder:
        """The folder of a user, which may not exist yet."""
        return UserFolder(self.path / name)

    def readers(self) -> tuple[Reader, ...]:
        """All readers: whoever has flow types."""
        folders = (UserFolder(path) for path in sorted(self.path.iterdir())) if self.path.exists() else ()
        return tuple(Reader(each.name, each.flow_types) for each in folders if each.flow_types)

    def add_reader(self, reader: Reader, templates: Iterable[FlowTemplate]) -> None:
        """Keeps a reader, or gives one that exists other flow types."""
        others = (each for each in self.readers() if each.name != reader.name)
        permissions.users(templates, readers=(reader, *others))  # raises if its name is taken
        self.user(reader.name).flow_types = reader.flow_types

    def names(self, templates: Iterable[FlowTemplate]) -> tuple[str, ...]:
        """The names of all users."""
        return tuple(user.name for user in self._users(templates))

    def guests(self, templates: Iterable[FlowTemplate]) -> tuple[str, ...]:
        """The names of agents and readers, who can be suspended."""
        return tuple(user.name for user in self._users(templates) if user.group in (AGENTS, READERS))

    def configuration(self, templates: Sequence[FlowTemplate], *, passwords: bool = False) -> Configuration:
        """The broker's configuration for these templates. Missing credentials are created: nkeys, or `passwords`.

        The same templates and files give the same text.
        """
        everybody = self._users(templates)
        places = self._places(everybody)
        suspended = tuple(user.name for user in everybody if self.user(user.name).suspended)
        users = permissions.users(templates, readers=self.readers(), suspended=suspended)
        for user in users:
            self.user(user.name).create(password=passwords)
        self._share_secret()
        credentials = {user.name: self.user(user.name).public() for user in users}
        return Configuration(
            permissions.render(users, credentials, places),
            tuple(user.name for user in users),
            suspended,
            tuple(name for name, each in credentials.items() if each.password),
        )

    def _share_secret(self) -> None:
        """Gives coordinators and visibility the secret that they share: a new one, unless one of them has it."""
        files = [self.user(name).visibility_secret for name in (COORDINATOR, VISIBILITY)]
        known = [each.read_text("utf-8") for each in files if each.exists()]
        for file in files:
            if not file.exists():
                known = known or [f"{new_secret()}\n"]
                write_private(file, known[0])

    def _users(self, templates: Iterable[FlowTemplate]) -> tuple[User, ...]:
        return permissions.users(templates, readers=self.readers())

    def _places(self, everybody: Sequence[User]) -> dict[str, int]:
        """The places of agents and readers. Whoever is suspended keeps its own."""
        known = {user.name: self.user(user.name).place for user in everybody}
        found = permissions.places(everybody, {name: place for name, place in known.items() if place is not None})
        for name, place in found.items():
            if place != known[name]:
                self.user(name).place = place
        return found
