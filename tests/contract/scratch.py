"""A copy of the contracts to damage, and `make` to see whether that is noticed."""

import os
import re
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


def clone(target: Path) -> Path:
    """A repository with the contracts and the demo's template, committed on `main`; returns the folder.

    Third-party protos are in its working tree and, as in a clone where `make` has run, not in git.
    """
    copy_contracts(target)
    for file in (".gitignore", "agents/demos/payments/refund.yaml"):
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, target / file)
    git(target, "init", "--quiet", "--initial-branch=main")
    commit(target, "Begin")
    return target


def commit(folder: Path, text: str) -> None:
    """Commit everything there."""
    author = ("-c", "user.name=Kim", "-c", "user.email=kim@example.com", "-c", "commit.gpgsign=false")
    git(folder, "add", "--all")
    git(folder, *author, "commit", "--quiet", "--message", text)


def git(folder: Path, *arguments: str) -> None:
    """Run git there; CalledProcessError where it fails."""
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


def edit(path: Path, pattern: str, replacement: str) -> None:
    """Replace the one place in a file that matches a regular expression."""
    text, count = re.subn(pattern, replacement, path.read_text("utf-8"), flags=re.MULTILINE)
    assert count == 1, f"{pattern!r} matches {count} times in {path.name}"
    path.write_text(text, "utf-8")
