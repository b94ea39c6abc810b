"""The login that commands use: one file for each coordinator address, readable by its owner only.

A token goes only to the address that its owner logged in for: another one may belong to somebody who collects tokens.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.private_files import write_private
from handrail.cli.user_folders import file_name, state_folder
from handrail.mesh.printable import clean

if TYPE_CHECKING:
    from handrail.cli.login.device_flow import Tokens
    from handrail.cli.login.provider import Provider

_EARLY = timedelta(seconds=30)
"""A token that expires so soon is refreshed: a command takes some time, too."""


@dataclass(frozen=True, slots=True)
class StoredLogin:
    """A login: its tokens, and where to refresh and revoke them. Times are ISO 8601; empty for unknown."""

    issuer: str
    client_id: str
    resource: str
    token_endpoint: str
    revocation_endpoint: str
    ca: str
    access_token: str
    refresh_token: str
    expires_at: str

    @property
    def provider(self) -> Provider:
        """The provider that gave the tokens; it is not asked for a device code."""
        from handrail.cli.login.provider import Provider

        return Provider(
            self.issuer, "", self.token_endpoint, self.revocation_endpoint, Path(self.ca) if self.ca else None
        )

    def with_tokens(self, tokens: Tokens) -> StoredLogin:
        """Returns the login with new tokens. A provider that sends no new refresh token leaves the old one valid."""
        return replace(
            self,
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token or self.refresh_token,
            expires_at=tokens.expires_at.isoformat(timespec="seconds") if tokens.expires_at else "",
        )

    def expires_within(self, span: timedelta) -> bool:
        """Tells whether the access token expires within this time, as far as the provider said when."""
        return bool(self.expires_at) and datetime.fromisoformat(self.expires_at) <= datetime.now(UTC) + span


def path_of(address: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Returns the file of an address, in the state folder."""
    return state_folder(environment) / "logins" / f"{file_name(address)}.json"


def save(address: str, login: StoredLogin) -> None:
    """Stores a login; raises CommandError if it can't be written."""
    path = path_of(address)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, json.dumps(asdict(login), indent=2) + "\n")
    except OSError as error:
        raise CommandError(f"{path} can't be written: {error.strerror}") from None


def load(address: str) -> StoredLogin | None:
    """Returns the stored login, None if there is none; raises CommandError if it can't be used."""
    path = path_of(address)
    try:
        if path.stat().st_mode & 0o077:
            raise CommandError(f"others may read {path}: log out, and log in again", Exit.USAGE)
        return StoredLogin(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, TypeError):
        raise CommandError(f"{path} is not a stored login: log out, and log in again", Exit.USAGE) from None


def forget(address: str) -> bool:
    """Deletes the stored login; tells whether there was one."""
    path = path_of(address)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CommandError(f"{path} can't be deleted: {error.strerror}") from None
    return True


def token_for(address: str) -> str:
    """Returns a valid token of the stored login, refreshed if needed; empty if nobody logged in for this address.

    Raises CommandError if the login has expired and can't be refreshed.
    """
    login = load(address)
    if login is None:
        return ""
    if not login.expires_within(_EARLY):
        return login.access_token
    with _alone(address):
        # Another command may have refreshed it meanwhile: most refresh tokens can be used once.
        login = load(address) or login
        if not login.expires_within(_EARLY):
            return login.access_token
        refreshed = login.with_tokens(_refresh(address, login))
        save(address, refreshed)
    return refreshed.access_token


def _refresh(address: str, login: StoredLogin) -> Tokens:
    from handrail.cli.login.device_flow import tokens_of
    from handrail.cli.login.provider import ProviderError
    from handrail.mesh.https import FetchError

    if not login.refresh_token:
        raise CommandError(f"the login for {address} has expired; log in again: handrail login", Exit.FORBIDDEN)
    form = {"grant_type": "refresh_token", "refresh_token": login.refresh_token, "client_id": login.client_id}
    if login.resource:
        form["resource"] = login.resource
    try:
        return tokens_of(login.provider.post(login.token_endpoint, form))
    except ProviderError as error:
        raise CommandError(
            f"the login for {address} can't be refreshed ({clean(error.error)}); log in again: handrail login",
            Exit.FORBIDDEN,
        ) from None
    except FetchError as error:
        raise CommandError(
            f"the login for {address} can't be refreshed: {clean(str(error))}", Exit.UNREACHABLE
        ) from None


@contextmanager
def _alone(address: str) -> Iterator[None]:
    """Holds a lock against other commands of this user for the time of the block."""
    lock = path_of(address).with_suffix(".lock")
    with open(os.open(lock, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
