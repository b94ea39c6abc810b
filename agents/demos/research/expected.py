"""The expected figures of a folder, counted in another way than by the agents: by tokens, not by syntax trees."""

import io
import token
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_DECISIONS = frozenset({"if", "elif", "for", "while", "except", "and", "or"})
_FSTRING = (getattr(token, "FSTRING_START", -1), getattr(token, "FSTRING_END", -1))


@dataclass(frozen=True, slots=True)
class Expected:
    """Sums over the files of a folder, without files that are not Python."""

    files: int
    lines: int
    functions: int
    decisions: int


def expect(folder: Path, paths: list[str]) -> Expected:
    """Counts the files at these paths."""
    texts, words = [], []
    for path in paths:
        try:
            text = (folder / path).read_text("utf-8-sig")
            words += list(_words(text))
        except (UnicodeDecodeError, SyntaxError, tokenize.TokenError):
            continue
        texts.append(text)
    return Expected(
        files=len(paths),
        lines=sum(len(text.splitlines()) for text in texts),
        functions=words.count("def"),
        decisions=sum(word in _DECISIONS for word in words),
    )


def _words(text: str) -> Iterator[str]:
    """The names and keywords of a file, without those in f-strings."""
    inside = 0
    for each in tokenize.generate_tokens(io.StringIO(text).readline):
        inside += (each.type == _FSTRING[0]) - (each.type == _FSTRING[1])
        if each.type == token.NAME and not inside:
            yield each.string
