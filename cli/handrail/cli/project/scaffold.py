"""Creates the files of a new project from the folder `files`, with the project's name in place of $name."""

from __future__ import annotations

import keyword
import re
import sys
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from string import Template

from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.installed_protos import imported, write_protos
from handrail.cli.version import VERSION

_TAKEN = frozenset({"buf", "gen", "google", "handrail", "proto", "secrets", "tests"})
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")

FILES = {
    "README.md": "README.md",
    "Makefile": "Makefile",
    "requirements.txt": "requirements.txt",
    "pyproject.toml": "pyproject.toml",
    ".gitignore": "gitignore",
    "buf.yaml": "buf.yaml",
    "Dockerfile": "Dockerfile",
    ".dockerignore": "dockerignore",
    "compose.yaml": "compose.yaml",
    "proto/$name/v1/$name.proto": "contracts.proto",
    "$name/$name.yaml": "template.yaml",
    "$name/__init__.py": "package.py.txt",
    "$name/assessor.py": "assessor.py.txt",
    "$name/buyer.py": "buyer.py.txt",
    "tests/test_flow.py": "test_flow.py.txt",
}
"""Maps each target file to its source."""


def check_name(name: str) -> None:
    """Raises CommandError unless the name is valid for a flow type, a proto package and a Python package."""
    if not _NAME.fullmatch(name):
        raise CommandError(
            f'"{name}" is not a project name: up to 40 lower-case letters, digits and _, a letter first, such as loans',
            Exit.USAGE,
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise CommandError(f'"{name}" is a Python keyword: choose another name', Exit.USAGE)
    if name in _TAKEN:
        raise CommandError(f'"{name}" is the name of a folder in each project: choose another name', Exit.USAGE)
    if name in sys.stdlib_module_names or _is_installed(name):
        raise CommandError(f'"{name}" is the name of an existing Python package: choose another name', Exit.USAGE)


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return True


def write(name: str, folder: Path) -> list[Path]:
    """Writes a project into an empty or new folder; returns the files written. Raises CommandError otherwise."""
    check_name(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CommandError(f"{folder} exists already and is not an empty folder", Exit.USAGE)
    source = resources.files("handrail.cli.project") / "files"
    words = {"name": name, "version": VERSION}
    written = []
    try:
        for target, made_from in FILES.items():
            path = folder / Template(target).substitute(name=name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(Template((source / made_from).read_text("utf-8")).substitute(words), "utf-8")
            written.append(path)
    except OSError as error:
        raise CommandError(f"{folder} can't be written: {error.strerror}", Exit.USAGE) from None
    return [*written, *write_protos(imported(folder / "proto"), folder / "proto")]
