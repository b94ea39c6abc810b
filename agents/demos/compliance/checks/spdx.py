"""Licences by SPDX id: verdicts on expressions, and the ids of other names of a licence.

https://packaging.python.org/en/latest/specifications/license-expression/
"""

from collections.abc import Callable
from enum import IntEnum

from boolean.boolean import Expression
from license_expression import LicenseSymbol, LicenseWithExceptionSymbol, Licensing

_LICENSING = Licensing()


class Verdict(IntEnum):
    """A policy's verdict on a licence; a greater one is worse."""

    ALLOWED = 0
    UNKNOWN = 1
    NEEDS_PERSON = 2
    DENIED = 3


def verdict(text: str, by: Callable[[str], Verdict]) -> Verdict:
    """The verdict on an SPDX licence expression: the best of a choice, the worst of licences that all apply.

    Raises:
        ValueError: if it is not an expression; says why.
    """
    try:
        return _verdict(_LICENSING.parse(text, simple=True), by)
    except Exception as error:  # the library raises IndexError, AssertionError and RecursionError too
        why = " ".join(str(error).split())
        raise ValueError(f'"{text}" is not a licence expression: {why}') from error


def _verdict(expression: Expression | None, by: Callable[[str], Verdict]) -> Verdict:
    match expression:
        case LicenseSymbol():
            return by(expression.key)
        case LicenseWithExceptionSymbol():
            return by(f"{expression.license_symbol.key} WITH {expression.exception_symbol.key}")
        case None:
            raise ValueError("it is empty")
    verdicts = [_verdict(part, by) for part in expression.args]
    return min(verdicts) if isinstance(expression, _LICENSING.OR) else max(verdicts)


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
"""The id for the last part of a classifier `License :: …`, without ambiguous ones such as `BSD License`."""

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
    # Without a version, any version may be chosen: https://spdx.org/licenses/GPL-1.0-or-later.html
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
    """The id for a free text such as `Apache 2.0`; empty if it is unknown."""
    return _NAMES.get(" ".join(name.lower().split()), "")


def id_of_text(text: str) -> str:
    """The licence of this text, found by a sentence of it; empty if it is unknown."""
    plain = " ".join(text.split())
    if _BSD in plain:
        return "BSD-3-Clause" if _BSD_THIRD_CLAUSE in plain else "BSD-2-Clause"
    return next((id_ for sentence, id_ in _TEXTS if sentence in plain), "")
