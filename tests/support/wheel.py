"""Wheels of this project, and environments of their own to install them into."""

import subprocess
import sys
from pathlib import Path

from tests.contract.source import ROOT

LOCK = ROOT / "requirements.lock"
_UV = Path(sys.executable).with_name("uv")


def build(folder: Path, *, source: Path = ROOT) -> Path:
    """Build the wheel of a source tree into a folder that has none, with the pinned hatchling; returns the wheel."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [wheel] = folder.glob("*.whl")
    return wheel


def environment(folder: Path) -> Path:
    """Create an empty environment, without pip; returns the folder of its programs."""
    uv("venv", "--python", sys.executable, folder)
    return folder / "bin"


def install(programs: Path, *what: str | Path) -> None:
    """Install into the environment, in the versions of the lock file where that has one."""
    uv("pip", "install", "--python", programs / "python", "--constraint", LOCK, *what)


def uv(*arguments: str | Path) -> None:
    """Run uv; what it says is the assertion's text if it fails."""
    done = subprocess.run([_UV, *map(str, arguments), "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
