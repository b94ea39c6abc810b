"""Identity: one canonical form of a name, so that nobody can act as two people or as somebody else. Pure.

Two names denote the same person if their canonical forms are equal: Unicode NFKC, case-folded, trimmed, without
invisible characters. A name that mixes scripts with look-alike letters is ambiguous: people can't tell it apart.
"""

from __future__ import annotations

import unicodedata

_LOOK_ALIKE = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU", "DESERET", "GEORGIAN"})
"""Scripts with letters that look like letters of another script here (Unicode Technical Standard 39, section 4)."""

_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\U0001d159")
"""Fillers and joiners that are invisible although Unicode lists them as letters, marks or symbols."""

_UNSEEN_RANGES = ((0x180B, 0x180F), (0x2065, 0x2065), (0xFE00, 0xFE0F), (0xFFF0, 0xFFF8), (0xE0000, 0xE0FFF))
"""The ranges of Unicode's Default_Ignorable_Code_Point that are not format characters (category Cf)."""

_ROUNDS = 4
"""The steps may partly undo each other's work: two rounds suffice for every character assigned so far."""


def canonical(name: str) -> str:
    """The canonical form of a name, used for comparison. Idempotent."""
    if name.isascii() and name.isprintable() and " " not in name:
        return name.lower()  # the usual case: nothing else changes such a name
    for _ in range(_ROUNDS):
        folded = _fold(name)
        if folded == name:
            break
        name = folded
    return name


def same(one: str, other: str) -> bool:
    """Whether two names denote the same person."""
    return canonical(one) == canonical(other)


def why_ambiguous(name: str) -> str:
    """Why a name is ambiguous, as text for people; empty if it is not."""
    if name.isascii():
        return ""
    scripts = sorted(_LOOK_ALIKE.intersection(map(_script, filter(str.isalpha, unicodedata.normalize("NFKC", name)))))
    if len(scripts) < 2:
        return ""
    return f"it mixes {' and '.join(script.capitalize() for script in scripts)} letters, which look alike"


def _fold(name: str) -> str:
    shown = "".join(" " if c.isspace() else c for c in unicodedata.normalize("NFKC", name) if not _is_unseen(c))
    return " ".join(unicodedata.normalize("NFKC", shown.casefold()).split())


def _is_unseen(character: str) -> bool:
    if character in _UNSEEN or any(first <= ord(character) <= last for first, last in _UNSEEN_RANGES):
        return True
    return unicodedata.category(character) in ("Cc", "Cf") and not character.isspace()


def _script(letter: str) -> str:
    """The script of a letter: the first word of its name, as Unicode names them."""
    return unicodedata.name(letter, "").partition(" ")[0]
