"""The people of a development installation, and their tokens."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from handrail.cli.private_files import write_private
from handrail.coordinator.api.dev_tokens import KeyFiles, ensure_keys, mint

APPROVERS = ("anna", "ben")
"""Two approvers, for a quorum of two. They hold FINANCE and every role that the templates' gates name."""

OPERATOR = "olga"
VIEWER = "vera"
FINANCE = "finance"


class People:
    """Keys and tokens in a folder; tokens are created again at each start, because they expire."""

    def __init__(self, folder: Path, gate_roles: Iterable[str]) -> None:
        self._folder = folder
        self._roles = {
            **{person: frozenset({FINANCE, *gate_roles}) for person in APPROVERS},
            OPERATOR: frozenset({"operator", "starter"}),
            VIEWER: frozenset({"viewer"}),
        }
        self.keys: KeyFiles = ensure_keys(folder / "keys")
        self.tokens = {person: mint(self.keys.private, person, roles=roles) for person, roles in self._roles.items()}
        for person, token in self.tokens.items():
            write_private(self.token_file(person), token + "\n")

    def token_file(self, person: str) -> Path:
        """Returns the file with a person's token."""
        return self._folder / "tokens" / person

    def roles(self, person: str) -> frozenset[str]:
        """Returns the roles in a person's token."""
        return self._roles[person]
