"""Pairs the parts of two templates by name: new, removed, kept, or only renamed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar


@dataclass(frozen=True, slots=True)
class Change:
    """One change for flows: its path, such as `steps.pay.timeout`, and a sentence."""

    path: str
    text: str


Part = TypeVar("Part")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs(Generic[Part]):
    """The parts of two templates, paired, in the order of the templates."""

    gone: tuple[Part, ...]
    new: tuple[Part, ...]
    kept: tuple[tuple[Part, Part], ...]
    renamed: tuple[tuple[str, str], ...]


def pair(old: Mapping[str, Part], new: Mapping[str, Part], like: Callable[[Part], object]) -> Pairs[Part]:
    """Pairs parts by name. A removed and a new part that differ only in their names are a renamed part."""
    gone = {name: part for name, part in old.items() if name not in new}
    added = {name: part for name, part in new.items() if name not in old}
    renamed = []
    for was, part in list(gone.items()):
        now = next((name for name, other in added.items() if like(other) == like(part)), None)
        if now is not None:
            renamed.append((was, now))
            del gone[was], added[now]
    return Pairs(
        gone=tuple(gone.values()),
        new=tuple(added.values()),
        kept=tuple((part, new[name]) for name, part in old.items() if name in new),
        renamed=tuple(renamed),
    )
