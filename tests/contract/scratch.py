"""A copy of the contracts to damage, and `make` to see whether that is noticed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.contract.source import ROOT

SETTLED = (".venv/installed-from", "proto/buf/validate/validate.proto")


def copy_contracts(target: Path) -> Path:
    """Copy what `make gen` and `make breaking` read; returns the folder."""
    for folder in ("proto", "gen"):
        shutil.copytree(ROOT / folder, target / folder)
    for file in ("Makefile", "buf.yaml", "buf.gen.yaml"):
        shutil.copy(ROOT / file, target / file)
    return target


def make(goal: str, folder: Path) -> tuple[int, str]:
    """Run a target there with the tools of this environment, installing nothing; its exit status and all it says."""
    command = ["make", goal, f"BIN={Path(sys.executable).parent}", *(f"--assume-old={name}" for name in SETTLED)]
    # The tests may run under `make test`: its flags are not this one's.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr
