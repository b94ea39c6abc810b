"""TLS of a gRPC server: certificate, key and the authority of client certificates, read anew when their files change.

It protects the connection only. Who calls is said by what a call carries, also where clients show certificates.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

log = logging.getLogger(__name__)

_Configuration = grpc.ServerCertificateConfiguration


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: the server's certificate with its chain, its key, and the authority that clients' certificates need.

    Without `client_ca` clients show no certificate.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> Sequence[Path]:
        """All files that are set."""
        return [path for path in (self.certificate, self.key, self.client_ca) if path is not None]


class Certificates:
    """The certificates in use. New connections get those that are in the files; open ones keep theirs."""

    def __init__(self, files: TlsFiles) -> None:
        """Reads the files. Raises ValueError, which names the file that can't be used and says why."""
        self._files = files
        self._seen = self._stamp()
        self._first = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """Returns credentials for a port, which follow the files."""
        needs_certificate = self._files.client_ca is not None
        # The stub does not know that None means no change.
        return grpc.dynamic_ssl_server_credentials(self._first, self.changed, needs_certificate)  # type: ignore[arg-type]

    def changed(self) -> _Configuration | None:
        """Returns the certificates if the files changed; None if they did not, or can't be used as they are.

        Called before each handshake, from a thread of gRPC. A certificate is often replaced before its key: the former
        pair stays in use until both files fit.
        """
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return None
            read = self._read()
        except ValueError as error:
            log.error("the new certificate is not used, the former one stays: %s", error)
            return None
        self._seen = stamp
        log.info("certificate %s was read anew", self._files.certificate)
        return read

    def _stamp(self) -> Sequence[tuple[int, int, int]]:
        """Returns what changes when a file is written or replaced."""
        try:
            stats = [path.stat() for path in self._files.paths]
        except OSError as error:
            raise ValueError(f"{error.filename} can't be read: {error.strerror}") from None
        return [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats]

    def _read(self) -> _Configuration:
        files = self._files
        try:
            # gRPC reports no reason for files that it can't use; OpenSSL does.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(files.certificate, files.key, password=_no_password)
            if files.client_ca is not None:
                context.load_verify_locations(files.client_ca)
            pair = files.key.read_bytes(), files.certificate.read_bytes()
            authority = files.client_ca.read_bytes() if files.client_ca is not None else None
        except (OSError, ValueError) as error:
            named = ", ".join(map(str, files.paths))
            raise ValueError(f"TLS can't be served with {named}: {_why(error)}") from None
        return grpc.ssl_server_certificate_configuration([pair], authority)


def _no_password() -> str:
    raise ValueError("the key is encrypted; give a key without a password, which only the server can read")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"the key does not belong to the certificate, or a file is not PEM ({error.reason or error})"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}"
    return str(error)
