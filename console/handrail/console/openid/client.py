"""How an identity provider knows the console."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from handrail.mesh.https import WITHIN


class ClientError(ValueError):
    """The client can't work so. The text says why, and what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The console as a client of one provider.

    `issuer` is the provider's address, exactly as it names itself. Without a `secret` the client is a public one.
    `resource` is the API that access tokens are for (RFC 8707); empty to leave it out. `ca` is an authority to trust
    instead of the system's. `title` is what people call the provider; by default its host. An answer may take
    `timeout`.
    """

    issuer: str
    client_id: str
    secret: str = field(default="", repr=False)
    scope: tuple[str, ...] = ("openid", "offline_access")
    resource: str = ""
    ca: Path | None = None
    title: str = ""
    timeout: timedelta = WITHIN

    def __post_init__(self) -> None:
        """Raises ClientError if nobody could sign in so."""
        if not self.client_id:
            raise ClientError("the identity provider knows the console by a client id: give one")
        if "openid" not in self.scope:
            raise ClientError("the scopes lack openid: without it, the identity provider does not say who signed in")

    @property
    def name(self) -> str:
        """What people call the provider."""
        return self.title or urlsplit(self.issuer).hostname or self.issuer
