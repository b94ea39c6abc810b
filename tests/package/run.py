"""Builds the distributions, and uses them as a stranger would: `make package`.

It checks their metadata, installs the wheel into empty environments in the newest versions that it allows, measures
them, and runs a flow: a broker and a coordinator from one environment, agents of a user's own from a plain one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.contract.source import ROOT
from tests.package.flow import run_flow

DIST = ROOT / "dist"
LARGEST_AGENT = 100_000_000
"""Bytes that the install of an agent may take with the Python of `.venv`. With 3.13 it is 7 MB more, because
the CEL library's wheel brings build files of its own."""

_TWINE = "twine==7.0.0"
_TOOLS = "grpcio-tools>=1.85.1"
_BIN = Path(sys.executable).parent
_EXTRAS = {
    "": ("agent", "admin", "health", "new"),
    "[uvloop]": ("agent",),
    "[otlp-grpc]": ("agent",),
    "[cli]": ("flow", "template", "certificates", "nats-permissions", "token", "login", "verify"),
    "[coordinator]": ("coordinator",),
    "[visibility]": ("visibility", "archive"),
    "[export]": ("archive",),
    "[console]": ("console",),
    "[dev]": ("dev", "coordinator", "visibility", "flow"),
    "[dev,console,export]": ("dev", "console", "archive"),
}
"""The commands that each extra has to be enough for."""


def main() -> int:
    """Runs everything; returns an exit status."""
    parser = argparse.ArgumentParser(prog="make package", description=__doc__)
    parser.add_argument("--no-sizes", action="store_true", help="measure the plain install only")
    arguments = parser.parse_args()
    try:
        wheel, demos = build()
        for python in pythons():
            with tempfile.TemporaryDirectory(prefix="handrail-package-") as folder:
                measure(python, wheel, Path(folder), all_extras=python == sys.executable and not arguments.no_sizes)
                try_out(python, wheel, demos, Path(folder))
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(map(str, error.cmd))}: ended with {error.returncode}\n{error.stderr}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        print(f"make package: {error}", file=sys.stderr)
        return 1
    return 0


def build() -> tuple[Path, Path]:
    """Builds all distributions into dist/, checks their metadata, returns the wheels of handrail and the demos."""
    shutil.rmtree(DIST, ignore_errors=True)
    hatchling = (sys.executable, "-m", "hatchling", "build", "--directory", str(DIST))
    run(*hatchling, "--target", "sdist", "--target", "wheel")
    run(*hatchling, "--target", "wheel", folder=ROOT / "agents" / "demos")
    built = sorted(DIST.glob("handrail*"))
    with tempfile.TemporaryDirectory() as folder:
        python = install(Path(folder) / "twine", sys.executable, _TWINE)
        run(python, "-m", "twine", "check", "--strict", *built)
    for path in built:
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.1f} MB, metadata checked")
    [wheel] = DIST.glob("handrail-*.whl")
    [demos] = DIST.glob("handrail_demos-*.whl")
    return wheel, demos


def pythons() -> Iterator[str]:
    """Yields this Python, then a 3.13 if there is one: $PYTHON313, or pyenv's."""
    yield sys.executable
    named = os.environ.get("PYTHON313")
    if named:
        yield named
        return
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = sorted(root.glob("versions/3.13.*/bin/python"))
    if found:
        yield str(found[-1])
    else:
        print("no Python 3.13: name one with PYTHON313 to try that, too")


def measure(python: str, wheel: Path, folder: Path, *, all_extras: bool) -> None:
    """Prints how much an install takes, and asks its commands for help, which imports them.

    Raises RuntimeError if an agent's install is too large, and CalledProcessError if an extra is not enough.
    """
    for extra in _EXTRAS if all_extras else ("",):
        own = install(folder / "measured", python, f"{wheel}{extra}")
        for command in _EXTRAS[extra]:
            run(own.with_name("handrail"), command, "--help")
        taken = size(folder / "measured")
        print(f"{version(python)}: handrail{extra} takes {taken / 1e6:.0f} MB", flush=True)
        if not extra and python == sys.executable and taken > LARGEST_AGENT:
            raise RuntimeError(f"the install of an agent may take {LARGEST_AGENT / 1e6:.0f} MB")


def try_out(python: str, wheel: Path, demos: Path, folder: Path) -> None:
    """Runs a flow with agents from a plain install, and asks the installed demos for help."""
    agent = install(folder / "agent", python, wheel)
    dev = install(folder / "dev", python, f"{wheel}[dev]", demos, _TOOLS)
    for name in ("payments", "compliance", "research"):
        run(dev, "-m", f"demos.{name}", "--help", folder=folder)
    status = run_flow(folder / "flow", agent=agent.parent, dev=dev.parent)
    print(f"{version(python)}: a flow with agents from a plain install: {status}", flush=True)


def version(python: str) -> str:
    """Returns what a Python calls itself, such as `Python 3.11.7`."""
    return run(python, "--version").strip()


def install(environment: Path, python: str, *what: str | Path) -> Path:
    """Installs into a new environment, without pip but compiled as pip does; returns its Python."""
    run(_BIN / "uv", "venv", "--quiet", "--clear", "--python", python, environment)
    own = environment / "bin" / "python"
    run(_BIN / "uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", own, *what)
    return own


def size(folder: Path) -> int:
    """Returns the bytes of all files of a folder; links count for nothing."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def run(*command: str | Path, folder: Path = ROOT) -> str:
    """Runs a program to its end and returns its output; raises CalledProcessError if it fails."""
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
