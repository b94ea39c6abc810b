"""Makes untrusted text safe for terminals and logs: control characters, line ends and characters that change the
writing direction are escaped. Pure.
"""

from __future__ import annotations

import json


def clean(text: str) -> str:
    """Escapes every character that Unicode does not call printable, line ends included. Returns one line."""
    return text if text.isprintable() else "".join(map(_shown, text))


def clean_lines(text: str) -> str:
    """Like `clean`, but keeps line ends."""
    return "\n".join(map(clean, text.split("\n")))


def shortened(text: str, length: int) -> str:
    """Truncates a text to this many characters, the last one an ellipsis if something was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def cut(text: str, length: int = 120) -> str:
    """Puts a text on one line and truncates it, for use in an error."""
    return shortened(" ".join(text.split()), length)


def json_text(value: object, *, indent: int | None = None) -> str:
    """Renders a value as JSON that parses back unchanged. Unprintable characters are escaped, as in `\\u202e`."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    # Line ends here belong to the layout: in strings they are already escaped.
    return "".join(each if each.isprintable() or each == "\n" else _json_escape(each) for each in text)


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
