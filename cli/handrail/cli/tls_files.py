"""The files of a server that speaks TLS."""

from __future__ import annotations

from pathlib import Path

from handrail.cli.exit_codes import CommandError, Exit
from handrail.mesh import settings as table
from handrail.mesh.setting import Settings
from handrail.mesh.tls import TlsFiles


def tls_files(settings: Settings, *, client_ca: Path | None = None) -> TlsFiles | None:
    """Returns the files that the settings name; None if TLS is off. Raises CommandError if one of them is missing."""
    certificate, key = settings.value(table.TLS_CERT), settings.value(table.TLS_KEY)
    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        raise CommandError(f"TLS needs both {table.TLS_CERT.flag} and {table.TLS_KEY.flag}", Exit.USAGE)
    return TlsFiles(certificate=certificate, key=key, client_ca=client_ca)
