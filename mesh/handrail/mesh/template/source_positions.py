"""Source positions: the line and column of each part of a template in its YAML, so that findings can point at it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from handrail.v1.template_pb2 import Finding


@dataclass(frozen=True, slots=True)
class Place:
    """A line and a column, counted from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Places:
    """The places of the parts of a template, by path: `steps[1].emits[0]`; the empty path is the whole template."""

    _of_path: dict[str, Place] = field(default_factory=dict)

    def add(self, path: str, place: Place) -> None:
        """Sets the place of a part."""
        self._of_path[path] = place

    def of(self, path: str) -> Place:
        """The place of a part. For a missing part, the place of the part around it."""
        return next((place for each in _outwards(path) if (place := self._of_path.get(each))), Place(1, 1))

    def located(self, findings: Iterable[Finding]) -> list[Finding]:
        """The findings, each with its line and column."""
        located = []
        for found in findings:
            place = self.of(found.path)
            copy = Finding(line=place.line, column=place.column)
            copy.MergeFrom(found)
            located.append(copy)
        return located


def _outwards(path: str) -> Iterator[str]:
    """The path itself and the paths of all parts around it, from the inside out."""
    while path:
        yield path
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    yield ""
