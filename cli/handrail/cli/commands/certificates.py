"""`handrail certificates`: an authority of one's own, and certificates for servers."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime
from pathlib import Path

from handrail.cli.authority import ensure_certificates
from handrail.cli.exit_codes import CommandError, Exit
from handrail.mesh.printable import clean

_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.(?!-)[A-Za-z0-9-]{1,63})*|[0-9a-f]*:[0-9a-f:]+")

_LONGEST = 253
"""The longest host name (RFC 1035)."""


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.description = (
        "Create a certificate authority in a folder, and certificates for servers. Call it again to renew those that "
        "end within 60 days; others stay. Give clients DIR/ca.pem, give each server its own DIR/NAME, and nobody "
        "DIR/authority. For more than a small installation, use the authority that you have."
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the authority and of the certificates")
    parser.add_argument("names", nargs="+", type=host, metavar="NAME", help="a server's host name, or its address")
    parser.set_defaults(run=_run)


def host(text: str) -> str:
    """Parses a host name or an address, for argparse."""
    if not _HOST.fullmatch(text) or len(text) > _LONGEST or text == "authority":
        raise argparse.ArgumentTypeError(f'"{text[:80]}" is not the name of a host')
    return text


def _run(arguments: argparse.Namespace) -> Exit:
    try:
        for path in ensure_certificates(arguments.folder, arguments.names, now=datetime.now(UTC)):
            print(clean(str(path)))
    except OSError as error:
        raise CommandError(f"{error.filename or arguments.folder}: {error.strerror}") from None
    except (TypeError, ValueError) as error:  # TypeError: the key has a password
        raise CommandError(f"{arguments.folder} holds something else than certificates and keys: {error}") from None
    return Exit.OK
