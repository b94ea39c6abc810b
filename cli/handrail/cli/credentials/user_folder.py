"""The folder of one user of the broker."""

from __future__ import annotations

import re
import secrets
from dataclasses import replace
from pathlib import Path

import bcrypt

from handrail.cli.exit_codes import CommandError
from handrail.cli.private_files import write_private
from handrail.mesh.bus import BusSettings
from handrail.mesh.bus.nkey import new_seed, public_key, read_seed
from handrail.mesh.permissions import Credentials

_PUBLIC_KEY = re.compile("U[A-Z2-7]{55}")
_PASSWORD_BYTES = 24
_BCRYPT_COST = 4
"""The lowest that there is. A higher one protects passwords that people think of, not 24 random bytes; and the broker
computes a hash for each connection."""


class UserFolder:
    """What is kept of one user. Methods raise OSError if a file can't be read or written, and CommandError if one holds
    something else than it should.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.nkey = path / "nkey"
        self.password = path / "password"
        self.visibility_secret = path / "visibility-secret"
        self._former = path / "nkey.former"
        self._hash = path / "password.hash"
        self._place = path / "place"
        self._flow_types = path / "flow-types"
        self._suspended = path / "suspended"

    def create(self, *, password: bool = False) -> None:
        """Creates an nkey, or a `password`, unless the user has either."""
        if self.nkey.exists() or self.password.exists():
            return
        if password:
            write_private(self.password, f"{secrets.token_urlsafe(_PASSWORD_BYTES)}\n")
        else:
            self._create_nkey()

    def public(self) -> Credentials:
        """What the broker has to know: public keys, and a hash of the password. Nothing in it lets anybody in."""
        keys = [_public_key(self.nkey)] if self.nkey.exists() else []
        keys += [self._former_key()] if self._former.exists() else []
        return Credentials(nkeys=tuple(dict.fromkeys(keys)), password=self._hashed() if self.password.exists() else "")

    def rotate(self) -> None:
        """Gives the user a new nkey. The former nkey or password stays valid until `retire`.

        Raises CommandError if an earlier one is still valid, too.
        """
        if self._has_former:
            raise CommandError(
                f"{self.name} still has a former credential: retire it first, once all processes use the new one "
                f"(handrail nats-permissions --retire {self.name})"
            )
        if self.nkey.exists():
            write_private(self._former, f"{_public_key(self.nkey)}\n")
        self._create_nkey()

    def retire(self) -> None:
        """Makes the former nkey or password invalid. Raises CommandError if the user has only one credential."""
        if not self._has_former:
            raise CommandError(f"{self.name} has no former credential: rotate first, then retire")
        for path in (self._former, self.password, self._hash):
            path.unlink(missing_ok=True)

    @property
    def place(self) -> int | None:
        """Its place in its group of accounts, or None."""
        if not self._place.exists():
            return None
        text = _text(self._place)
        if not (text.isascii() and text.isdecimal()):
            raise CommandError(
                f"{self._place} must hold the number of a place: correct it, or delete it for a new place"
            )
        return int(text)

    @place.setter
    def place(self, place: int) -> None:
        write_private(self._place, f"{place}\n")

    @property
    def flow_types(self) -> tuple[str, ...]:
        """The flow types of a reader; empty for every other user."""
        return tuple(_text(self._flow_types).split()) if self._flow_types.exists() else ()

    @flow_types.setter
    def flow_types(self, flow_types: tuple[str, ...]) -> None:
        write_private(self._flow_types, "".join(f"{flow_type}\n" for flow_type in flow_types))

    @property
    def suspended(self) -> bool:
        """Whether the broker must not let this user in."""
        return self._suspended.exists()

    @suspended.setter
    def suspended(self, suspended: bool) -> None:
        if suspended:
            write_private(self._suspended, "")
        else:
            self._suspended.unlink(missing_ok=True)

    def environment(self) -> dict[str, str]:
        """The environment variables with which a process connects as this user."""
        if self.nkey.exists():
            return {"HANDRAIL_NATS_NKEY_FILE": str(self.nkey)}
        return {"HANDRAIL_NATS_USER": self.name, "HANDRAIL_NATS_PASSWORD_FILE": str(self.password)}

    def login(self, settings: BusSettings) -> BusSettings:
        """These settings with the credentials of this user. Raises CommandError if it has none."""
        if self.nkey.exists():
            return replace(settings, user="", password="", nkey_seed_file=self.nkey)
        if not self.password.exists():
            raise CommandError(f"{self.name} has no credentials in {self.nkey.parent}: generate the permissions first")
        return replace(settings, user=self.name, password=_text(self.password), nkey_seed_file=None)

    @property
    def _has_former(self) -> bool:
        return self._former.exists() or (self.nkey.exists() and self.password.exists())

    def _former_key(self) -> str:
        key = _text(self._former)
        if not _PUBLIC_KEY.fullmatch(key):
            raise CommandError(f"{self._former} holds no public key of a user's nkey: delete it")
        return key

    def _create_nkey(self) -> None:
        write_private(self.nkey, f"{new_seed()}\n")

    def _hashed(self) -> str:
        """The hash of the password. It is kept: with another salt each time, every generated file would differ."""
        password = _text(self.password).encode()
        if not password:
            raise CommandError(f"{self.password} is empty: delete it for new credentials")
        try:
            if self._hash.exists():
                known = _text(self._hash)
                if bcrypt.checkpw(password, known.encode()):
                    return known
            found = bcrypt.hashpw(password, bcrypt.gensalt(_BCRYPT_COST)).decode()
        except ValueError as error:
            raise CommandError(f"the password in {self.password} can't be hashed: {error}") from None
        write_private(self._hash, f"{found}\n")
        return found


def _public_key(path: Path) -> str:
    try:
        return public_key(read_seed(path))
    except ValueError as error:
        raise CommandError(f"{path} can't be used: {error}; restore it, or delete it for a new nkey") from None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except UnicodeDecodeError:
        raise CommandError(f"{path} is not text") from None
