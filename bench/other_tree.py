"""Another revision of this project, installed beside it: `--against REV`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.contender import ROOT


@contextmanager
def installed(revision: str) -> Iterator[Path]:
    """The interpreter of a work tree of this revision, with an environment of its own, while the block runs.

    Raises SystemExit with what went wrong.
    """
    with tempfile.TemporaryDirectory(prefix="bench-tree-") as folder:
        tree = Path(folder) / "tree"
        _run("git", "worktree", "add", "--quiet", "--detach", str(tree), revision)
        try:
            python = tree / ".venv" / "bin" / "python"
            uv = str(Path(sys.executable).with_name("uv"))
            install = (uv, "pip", "install", "--quiet", "--python", str(python))
            _run(uv, "venv", "--quiet", "--python", sys.executable, str(tree / ".venv"))
            _run(*install, "--require-hashes", "--requirements", str(tree / "requirements.lock"))
            _run(*install, "--no-deps", "--no-build-isolation", "--editable", str(tree))
            yield python
        finally:
            _run("git", "worktree", "remove", "--force", str(tree))


def _run(*command: str) -> None:
    try:
        subprocess.run(command, cwd=ROOT, check=True)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"bench: {' '.join(command[:3])} failed with status {error.returncode}") from None
