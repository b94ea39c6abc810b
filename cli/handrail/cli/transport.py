"""The connection to a coordinator: with TLS, or in plain text on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from handrail.cli.exit_codes import CommandError, Exit
from handrail.mesh import settings as table
from handrail.mesh.setting import Settings
from handrail.mesh.setting_parsers import is_loopback

Options = Sequence[tuple[str, int | str]]

_FILES = f"{table.CA.flag}, {table.CLIENT_CERT.flag} and {table.CLIENT_KEY.flag}"

_PLAIN = (
    # A proxy of the environment would get everything, the token included.
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True, slots=True)
class Transport:
    """How to reach a coordinator: its address, and credentials for TLS; None for plain text."""

    address: str
    credentials: grpc.ChannelCredentials | None = None

    @classmethod
    def of(cls, settings: Settings, *, secret: bool = True) -> Transport:
        """Returns the transport that the settings describe.

        A `secret` (a token, or what it gives access to) crosses no network in plain text, unless `--tls off` says so.
        Raises CommandError if the settings contradict each other, or a file can't be read.
        """
        address, tls = settings.value(table.ADDRESS), settings.value(table.TLS)
        ca, certificate, key = (
            settings.value(table.CA),
            settings.value(table.CLIENT_CERT),
            settings.value(table.CLIENT_KEY),
        )
        files = bool(ca or certificate or key)
        if tls == "off" and files:
            raise CommandError(f"{_FILES} are for TLS, and {table.TLS.flag} off forbids it", Exit.USAGE)
        if bool(certificate) != bool(key):
            raise CommandError(
                f"a client certificate needs both {table.CLIENT_CERT.flag} and {table.CLIENT_KEY.flag}", Exit.USAGE
            )
        if tls == "on" or files:
            return cls(address, grpc.ssl_channel_credentials(_read(ca), _read(key), _read(certificate)))
        if secret and tls == "auto" and not is_loopback(address):
            raise CommandError(
                f"no token is sent to {address} without TLS: name its certificate authority with {table.CA.flag} or "
                f"{table.CA.env}, or give {table.TLS.flag} on for one that is public; {table.TLS.flag} off sends "
                "everything in plain text",
                Exit.USAGE,
            )
        return cls(address)

    def channel(self, options: Options = ()) -> grpc.Channel:
        """Opens a channel; close it after use."""
        if self.credentials is None:
            return grpc.insecure_channel(self.address, (*options, *_PLAIN))
        return grpc.secure_channel(self.address, self.credentials, options)


def _read(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path is not None else None
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror}", Exit.USAGE) from None
