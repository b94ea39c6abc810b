"""`handrail contracts generate`: Python code for protos. Third-party imports come from installed packages."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from handrail.cli import installed_protos
from handrail.cli.arguments import Parsers
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.generated_code import use_own_rules


def fill(verbs: Parsers) -> None:
    """Adds the verb."""
    generate = verbs.add_parser(
        "generate",
        help="generate Python code for protos, with type stubs",
        description="Generate Python code for protos, with type stubs. They may import buf/validate, google/protobuf, "
        "google/type, google/rpc and handrail/v1: these come from installed packages, nothing is downloaded.",
    )
    generate.add_argument("protos", type=Path, metavar="FOLDER", help="root folder of the protos' imports")
    generate.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write to")
    generate.set_defaults(run=_generate)


def _generate(arguments: argparse.Namespace) -> Exit:
    protos: Path = arguments.protos
    files = sorted(installed_protos.own(protos))
    if find_spec("grpc_tools") is None:
        raise CommandError("grpcio-tools is not installed: python -m pip install grpcio-tools", Exit.USAGE)
    with tempfile.TemporaryDirectory() as scratch:
        _compile(protos, files, Path(scratch))
        use_own_rules(Path(scratch))
        shutil.copytree(scratch, arguments.out, dirs_exist_ok=True)
    print(f"{'1 proto' if len(files) == 1 else f'{len(files)} protos'}: Python code written to {arguments.out}")
    return Exit.OK


def _compile(protos: Path, files: Sequence[str], out: Path) -> None:
    """Runs protoc; raises CommandError with what it says if it fails."""
    with tempfile.NamedTemporaryFile(suffix=".binpb") as known:
        known.write(installed_protos.known())
        known.flush()
        includes = (protos, *installed_protos.google_folders())
        command = [sys.executable, "-m", "grpc_tools.protoc", *(f"-I{folder}" for folder in includes)]
        outputs = [f"--python_out={out}", f"--pyi_out={out}"]
        done = subprocess.run(
            [*command, f"--descriptor_set_in={known.name}", *outputs, *files],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise CommandError(done.stderr.strip() or f"protoc ended with {done.returncode}")
