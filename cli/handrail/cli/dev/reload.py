"""Reads a package of agents once more, in a process of its own: Python imports a module once.

`python -m handrail.cli.dev.reload FILE PACKAGE…` writes the package to a file.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from handrail.cli.dev.package import Package, load_package, merged
from handrail.cli.dev.processes import StartError
from handrail.mesh.printable import clean

_SECONDS = 60.0


def reloaded(names: Sequence[str]) -> Package:
    """Returns what the packages declare now, without examples; raises StartError if one can't be imported."""
    with tempfile.TemporaryDirectory(prefix="handrail-reload-") as folder:
        file = Path(folder, "package")
        command = [sys.executable, "-m", __name__, str(file), *names]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise StartError(f"{', '.join(names)} can't be imported within {_SECONDS:g} s") from None
        if done.returncode:
            raise StartError(done.stderr.strip().rpartition("\n")[2] or f"{', '.join(names)} can't be imported")
        found: Package = pickle.loads(file.read_bytes())
        return found


def _main(file: str, names: Sequence[str]) -> int:
    try:
        package = merged(load_package(name) for name in names)
    except StartError as error:
        print(clean(str(error)), file=sys.stderr)
        return 1
    Path(file).write_bytes(pickle.dumps(replace(package, examples={})))
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2:]))
