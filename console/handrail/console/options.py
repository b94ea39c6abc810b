"""How a console runs: where it listens, which coordinator it asks, whom it lets in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc

from handrail.console.openid.client import Client
from handrail.mesh.setting_parsers import Network, is_loopback

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""The names under which a browser on this machine finds the console."""


class OptionError(ValueError):
    """Options contradict each other. The text says which, and what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one console.

    `listen` and `coordinator` are `HOST:PORT`. Without `credentials`, the coordinator is asked in plain text. `hosts`
    are names, without port, by which browsers may address the console, besides those of this machine. Of
    `trusted_proxies` it is believed for whom they ask. `identities` is
    a folder with one token for each file: whoever opens the console may act as any of them. `openid` has people sign in
    at an identity provider; unless `pasted`, no pasted token is taken. `trace_link` is the
    address of a trace in which `{trace}` stands for its id; empty for none.
    """

    listen: str
    coordinator: str
    credentials: grpc.ChannelCredentials | None = None
    hosts: frozenset[str] = frozenset()
    trusted_proxies: tuple[Network, ...] = ()
    identities: Path | None = None
    openid: Client | None = None
    pasted: bool = True
    trace_link: str = ""
    certificate: Path | None = None
    key: Path | None = None
    timeout: timedelta = timedelta(seconds=10)

    def __post_init__(self) -> None:
        """Raises OptionError if the options would let strangers in, or tokens out."""
        if (self.certificate is None) != (self.key is None):
            raise OptionError("TLS needs both a certificate and its key")
        if not is_loopback(self.listen) and self.certificate is None:
            raise OptionError(
                f"without TLS, tokens would cross the network in plain text: give a certificate and its key to listen "
                f"on {self.listen}, or listen on 127.0.0.1 behind a proxy that speaks TLS"
            )
        if not is_loopback(self.listen) and not self.hosts:
            raise OptionError(f"to listen on {self.listen}, name the hosts by which browsers may address the console")
        if self.identities is not None and (self.hosts or not is_loopback(self.listen)):
            raise OptionError("one-click identities are for a console on 127.0.0.1 that has no other host name")
        if not self.pasted and self.openid is None and self.identities is None:
            raise OptionError("nobody could sign in: allow pasted tokens, or name an identity provider")

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """Every name, without port, by which a request may address the console."""
        return self.hosts | LOOPBACK_HOSTS if is_loopback(self.listen) else self.hosts
