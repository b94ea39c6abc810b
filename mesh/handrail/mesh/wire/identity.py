"""Who is who: one canonical form of a name, so that nobody passes for two people, or for another one. Pure.

Two names are the same person where their canonical forms are equal: Unicode NFKC, case-folded, trimmed, without what
can't be seen. A name that mixes scripts whose letters look alike has no such form that a reader could rely on.
"""

from __future__ import annotations

import unicodedata

_LOOK_ALIKE = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU", "DESERET", "GEORGIAN"})
"""Scripts with letters that look like those of another one of them (Unicode Technical Standard 39, section 4)."""

_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Fillers and joiners that are letters or marks by category, and show nothing."""

_ROUNDS = 4
"""Each step may undo another's work a little: two rounds settle every name that is assigned so far."""


def canonical(name: str) -> str:
    """The form in which a name is compared; the canonical form of a canonical form is itself."""
    for _ in range(_ROUNDS):
        folded = _fold(name)
        if folded == name:
            break
        name = folded
    return name


def same(one: str, other: str) -> bool:
    """Whether two names are one person."""
    return canonical(one) == canonical(other)


def why_ambiguous(name: str) -> str:
    """Why nobody can tell who a name is, for people; empty where it can be told."""
    scripts = sorted(_LOOK_ALIKE.intersection(map(_script, filter(str.isalpha, unicodedata.normalize("NFKC", name)))))
    if len(scripts) < 2:
        return ""
    return f"it mixes {' and '.join(script.capitalize() for script in scripts)} letters, which look alike"


def _fold(name: str) -> str:
    shown = "".join(" " if c.isspace() else c for c in unicodedata.normalize("NFKC", name) if not _is_unseen(c))
    return " ".join(unicodedata.normalize("NFKC", shown.casefold()).split())


def _is_unseen(character: str) -> bool:
    if character in _UNSEEN or 0xFE00 <= ord(character) <= 0xFE0F or 0xE0100 <= ord(character) <= 0xE01EF:
        return True
    return unicodedata.category(character) in ("Cc", "Cf") and not character.isspace()


def _script(letter: str) -> str:
    """The script of a letter: the first word of its name, as Unicode names them."""
    return unicodedata.name(letter, "").partition(" ")[0]
