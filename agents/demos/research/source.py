"""A folder of Python source: lists its files, and reads one of them safely."""

from pathlib import Path

MAX_FILES = 250
"""The largest number of files of one flow: each takes two messages, and a flow holds up to 900."""

MAX_BYTES = 2 << 20
"""The largest file that is measured."""

LEFT_OUT = frozenset({"__pycache__", "node_modules", "build", "dist", "site-packages", "venv"})
"""Folders without source of the project. Hidden ones are left out too."""


class SourceError(Exception):
    """The source can't be read; a retry can't help."""


def python_files(folder: Path) -> list[str]:
    """The Python files below a folder, by path. Raises SourceError if it is not a folder."""
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder")
    found = []
    waiting = [folder]
    while waiting:
        for path in waiting.pop().iterdir():
            if path.is_symlink() or path.name.startswith("."):
                continue  # a link may lead out of the folder, or form a loop
            if path.is_dir() and path.name not in LEFT_OUT:
                waiting.append(path)
            elif path.suffix == ".py" and path.is_file():
                found.append(path.relative_to(folder).as_posix())
    return sorted(found)


def read(folder: Path, path: str) -> bytes:
    """The bytes of a file below the folder. Raises SourceError if it leads out, is missing or too large."""
    inside = folder.resolve()
    file = (inside / path).resolve()
    if not file.is_relative_to(inside):
        raise SourceError(f"{path} leads out of {folder}")
    try:
        if file.stat().st_size > MAX_BYTES:
            raise SourceError(f"{path} has more than {MAX_BYTES:,} bytes")
        return file.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error


def decode(content: bytes, path: str) -> str:
    """The text of a file. Raises SourceError if it is not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None
