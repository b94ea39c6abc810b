"""Tokens that are revoked before they expire, by their id or by their subject, as a file lists them. Pure.

A file, not a stream: it comes to each replica the way the keys come, it holds while the broker is away, and nobody who
can only reach the broker or the API can shorten it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from handrail.mesh.wire.identity import canonical


@dataclass(frozen=True, slots=True)
class Revocations:
    """Revoked tokens: ids (`jti`), and for each canonical subject the time up to which its tokens are revoked."""

    token_ids: frozenset[str]
    issued_until: Mapping[str, datetime]

    def revoke(self, *, token_id: str, subject: str, issued_at: datetime | None) -> bool:
        """Whether a token is revoked. One that does not say when it was issued is revoked with its subject."""
        if token_id and token_id in self.token_ids:
            return True
        until = self.issued_until.get(canonical(subject))
        return until is not None and (issued_at is None or issued_at <= until)


NOTHING = Revocations(frozenset(), {})
"""No token is revoked."""


def read_revocations(data: bytes) -> Revocations:
    """Reads the lines of a file; raises ValueError with the number of a malformed one.

    Each line is `jti ID` or `subject TIME NAME`, the name up to the end of the line. Empty lines don't count, nor do
    lines that begin with `#`.
    """
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError("is malformed: it is not UTF-8") from None
    token_ids: set[str] = set()
    until: dict[str, datetime] = {}
    for number, line in enumerate(lines, start=1):
        words = line.split(maxsplit=2)
        match words:
            case []:
                continue
            case [first, *_] if first.startswith("#"):
                continue
            case ["jti", token_id]:
                token_ids.add(token_id)
            case ["subject", time, name] if canonical(name):
                subject, moment = canonical(name), _moment(time, number)
                until[subject] = max(moment, until.get(subject, moment))
            case _:
                raise ValueError(f"is malformed: line {number} is neither `jti ID` nor `subject TIME NAME`")
    return Revocations(frozenset(token_ids), until)


def _moment(text: str, number: int) -> datetime:
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"is malformed: line {number} needs a time with its zone, such as 2026-11-22T21:00:00Z")
