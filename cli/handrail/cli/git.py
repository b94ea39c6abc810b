"""Extracts a project at a git ref, beside the working tree."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

from handrail.cli.exit_codes import CommandError, Exit


def extract(ref: str, target: Path) -> None:
    """Extracts the working directory at a ref into `target`; raises CommandError with Exit.USAGE if that fails."""
    _require_repository()
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if commit.returncode:
        raise CommandError(
            f'"{ref}" is neither a file nor a git ref here; in a shallow clone fetch it first: git fetch origin {ref}',
            Exit.USAGE,
        )
    archive = _git("archive", "--format=tar", commit.stdout.decode().strip())
    if archive.returncode:
        raise CommandError(f"{ref} has no folder {Path.cwd()}: {_reason(archive)}", Exit.USAGE)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(target, filter="data")


def copy_ignored(files: Iterable[str], target: Path) -> None:
    """Copies the git-ignored files that `target` lacks from the working tree: third-party protos are downloaded, not
    committed, so a ref does not contain them."""
    listed = _git("check-ignore", "--stdin", "-z", given="\0".join(files).encode())
    for path in filter(None, listed.stdout.decode().split("\0")):
        copy = target / path
        if not copy.exists() and Path(path).is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def _require_repository() -> None:
    inside = _git("rev-parse", "--is-inside-work-tree")
    if inside.returncode:
        text = f"this folder is not in a git repository ({_reason(inside)}); name an image instead"
        raise CommandError(text, Exit.USAGE)


def _git(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", *arguments], input=given, capture_output=True)
    except OSError:
        raise CommandError("git is not installed; name an image instead of a ref", Exit.USAGE) from None


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[0].removeprefix("fatal: ") if lines else "git gave no reason"
