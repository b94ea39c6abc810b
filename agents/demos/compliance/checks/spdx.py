"""Licences by their SPDX ids: expressions of them, and the ids that other ways of naming a licence mean.

https://packaging.python.org/en/latest/specifications/license-expression/
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum


class Verdict(IntEnum):
    """What a policy says of a licence; the worse, the greater."""

    ALLOWED = 0
    UNKNOWN = 1
    NEEDS_PERSON = 2
    DENIED = 3


@dataclass(frozen=True, slots=True)
class Licence:
    """One licence of an expression, with its exception where it has one."""

    id: str

    def judged(self, by: Callable[[str], Verdict]) -> Verdict:
        """The verdict; a licence with an exception that the policy does not name is judged without it."""
        whole = by(self.id)
        bare = self.id.partition(" WITH ")[0]
        return by(bare) if whole is Verdict.UNKNOWN else whole


@dataclass(frozen=True, slots=True)
class Joined:
    """Several licences: all of them hold, or one of them may be chosen."""

    choice: bool
    parts: tuple["Expression", ...]

    def judged(self, by: Callable[[str], Verdict]) -> Verdict:
        """The best verdict of those that may be chosen from; the worst of those that all hold."""
        verdicts = [part.judged(by) for part in self.parts]
        return min(verdicts) if self.choice else max(verdicts)


Expression = Licence | Joined

DEPTH = 20
"""Nested brackets; more are no expression that a person wrote."""

_TOKEN = re.compile(r"\s*(?:([()])|([A-Za-z0-9.+:-]+))\s*")


def parse(text: str) -> Expression:
    """Read an SPDX licence expression.

    Raises:
        ValueError: where it is none.
    """
    tokens: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f'"{text}" is no licence expression: "{text[at]}" has no place in one')
        tokens.append(match[1] or match[2])
        at = match.end()
    expression, rest = _either(tokens, DEPTH)
    if rest:
        raise ValueError(f'"{text}" is no licence expression: "{rest[0]}" is out of place')
    return expression


def _either(tokens: list[str], depth: int) -> tuple[Expression, list[str]]:
    return _joined(tokens, "OR", lambda rest: _joined(rest, "AND", lambda rest: _licence(rest, depth)))


def _joined(
    tokens: list[str], operator: str, part: Callable[[list[str]], tuple[Expression, list[str]]]
) -> tuple[Expression, list[str]]:
    first, rest = part(tokens)
    parts = [first]
    while rest and rest[0].upper() == operator:
        following, rest = part(rest[1:])
        parts.append(following)
    return (first if len(parts) == 1 else Joined(operator == "OR", tuple(parts))), rest


def _licence(tokens: list[str], depth: int) -> tuple[Expression, list[str]]:
    if not tokens or tokens[0].upper() in ("AND", "OR", "WITH", ")"):
        raise ValueError("a licence is missing in an expression")
    if tokens[0] == "(":
        if not depth:
            raise ValueError(f"a licence expression has more than {DEPTH} brackets in each other")
        inner, rest = _either(tokens[1:], depth - 1)
        if not rest or rest[0] != ")":
            raise ValueError("a bracket of a licence expression is not closed")
        return inner, rest[1:]
    if len(tokens) > 2 and tokens[1].upper() == "WITH":
        return Licence(f"{tokens[0]} WITH {tokens[2]}"), tokens[3:]
    return Licence(tokens[0]), tokens[1:]


CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
}
"""The id that the last part of a classifier `License :: …` means; not those that leave it open, as `BSD License`."""

_NAMES = {
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache 2 license": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd-3-clause license": "BSD-3-Clause",
    "2-clause bsd license": "BSD-2-Clause",
    "agplv3": "AGPL-3.0-only",
    # Without a version any may be chosen: https://spdx.org/licenses/GPL-1.0-or-later.html
    "gnu gpl": "GPL-1.0-or-later",
    "gpl": "GPL-1.0-or-later",
    "gplv2": "GPL-2.0-only",
    "gplv2+": "GPL-2.0-or-later",
    "gplv3": "GPL-3.0-only",
    "gplv3+": "GPL-3.0-or-later",
    "lgpl": "LGPL-2.0-or-later",
    "lgpl v3": "LGPL-3.0-only",
    "lgplv3": "LGPL-3.0-only",
    "lgplv3+": "LGPL-3.0-or-later",
    "isc license": "ISC",
    "mit license": "MIT",
    "the mit license": "MIT",
    "mozilla public license 2.0": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}

_TEXTS = (
    ("GNU AFFERO GENERAL PUBLIC LICENSE", "AGPL-3.0-only"),
    ("GNU LESSER GENERAL PUBLIC LICENSE", "LGPL-3.0-only"),
    ("GNU GENERAL PUBLIC LICENSE", "GPL-3.0-only"),
    ("Mozilla Public License Version 2.0", "MPL-2.0"),
    ("Apache License Version 2.0", "Apache-2.0"),
    ("PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2", "PSF-2.0"),
    ("Permission is hereby granted, free of charge, to any person obtaining a copy", "MIT"),
    ("Permission to use, copy, modify, and/or distribute this software for any purpose", "ISC"),
)
_BSD = "Redistribution and use in source and binary forms, with or without modification"
_BSD_THIRD_CLAUSE = "used to endorse or promote products derived from"


def id_of_name(name: str) -> str:
    """The id that a free text such as `Apache 2.0` means; empty where none is known."""
    return _NAMES.get(" ".join(name.lower().split()), "")


def id_of_text(text: str) -> str:
    """The licence whose text this is, by a sentence of it; empty where none is known."""
    plain = " ".join(text.split())
    if _BSD in plain:
        return "BSD-3-Clause" if _BSD_THIRD_CLAUSE in plain else "BSD-2-Clause"
    return next((id_ for sentence, id_ in _TEXTS if sentence in plain), "")
