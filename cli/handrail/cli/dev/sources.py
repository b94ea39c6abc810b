"""The files that agents and templates are made of, and which of them have changed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

_STATE = tuple[int, int]


class Sources:
    """Looks at files again and again. A folder stands for the Python files in it, hidden folders left out."""

    def __init__(self, code: Iterable[Path], templates: Iterable[Path]) -> None:
        self._code = tuple(code)
        self._templates = tuple(templates)
        self._code_seen = dict(_states(self._code))
        self._templates_seen = dict(_states(self._templates))

    def changed_code(self) -> list[Path]:
        """Returns the Python files that were added, changed or removed since the last look."""
        before, self._code_seen = self._code_seen, dict(_states(self._code))
        return _different(before, self._code_seen)

    def changed_templates(self) -> list[Path]:
        """Returns the templates that changed since the last look."""
        before, self._templates_seen = self._templates_seen, dict(_states(self._templates))
        return _different(before, self._templates_seen)


def _different(before: dict[Path, _STATE], now: dict[Path, _STATE]) -> list[Path]:
    return sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))


def _states(places: Iterable[Path]) -> Iterator[tuple[Path, _STATE]]:
    for place in places:
        for path in _python_files(place) if place.is_dir() else (place,):
            try:
                found = path.stat()
            except OSError:
                continue  # an editor replaces it at the moment, or it was removed
            yield path, (found.st_mtime_ns, found.st_size)


def _python_files(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith((".", "__"))]
        yield from (Path(where, each) for each in files if each.endswith(".py"))
