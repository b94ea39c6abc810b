"""`handrail contracts vendor`: puts what a project's protos import beside them, for buf and editors."""

from __future__ import annotations

import argparse
from pathlib import Path

from handrail.cli.arguments import Parsers
from handrail.cli.exit_codes import Exit
from handrail.cli.installed_protos import imported, write_protos
from handrail.mesh.printable import clean


def fill(verbs: Parsers) -> None:
    """Adds the verb."""
    vendor = verbs.add_parser(
        "vendor",
        help="put the third-party protos that protos import beside them",
        description="Put the third-party protos that protos import beside them, for buf and editors. They may import "
        "buf/validate, google/type, google/rpc and handrail/v1: these come from installed packages, nothing is "
        "downloaded. buf has google/protobuf itself.",
    )
    vendor.add_argument("protos", type=Path, metavar="FOLDER", help="root folder of the protos' imports")
    vendor.set_defaults(run=_vendor)


def _vendor(arguments: argparse.Namespace) -> Exit:
    files = imported(arguments.protos)
    write_protos(files, arguments.protos)
    print(clean(f"{'1 proto' if len(files) == 1 else f'{len(files)} protos'} written to {arguments.protos}"))
    return Exit.OK
