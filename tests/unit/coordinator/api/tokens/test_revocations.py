"""The file of revoked tokens: what its lines mean, and which tokens they hit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from handrail.coordinator.api.tokens.revocations import read_revocations

T = datetime(2026, 11, 22, 21, tzinfo=UTC)
FILE = """
# left the company
subject 2026-11-22T21:00:00Z Anna  Maria
subject 2026-11-22T20:00:00+00:00 anna maria
jti 4f1c-77
"""
REVOKED = read_revocations(FILE.encode())


def revoked(token_id: str, subject: str, issued_at: datetime | None) -> bool:
    return REVOKED.revoke(token_id=token_id, subject=subject, issued_at=issued_at)


def test_a_token_is_revoked_by_its_id() -> None:
    assert revoked("4f1c-77", "ben", T)
    assert not revoked("4f1c-78", "ben", T)
    assert not revoked("", "ben", T)


def test_tokens_of_a_subject_are_revoked_up_to_the_latest_time_that_is_given() -> None:
    assert revoked("", "anna maria", T)
    assert not revoked("", "anna maria", T + timedelta(seconds=1))
    assert not revoked("", "anna", T)


def test_a_subject_is_revoked_however_its_name_is_written() -> None:
    assert revoked("", " ANNA\u00a0MARIA\u200b", T)


def test_a_token_that_does_not_say_when_it_was_issued_is_revoked_with_its_subject() -> None:
    assert revoked("", "anna maria", None)


@pytest.mark.parametrize(
    "line",
    ["jti", "jti a b", "token a", "subject anna", "subject 2026-11-22T21:00:00 anna", "subject yesterday anna",
     "subject 2026-11-22T21:00:00Z", "subject 2026-11-22T21:00:00Z \u200b", "subject 0001-01-01T00:00:00+14:00 anna"],
)  # fmt: skip
def test_a_line_that_says_nothing_certain_makes_the_file_malformed(line: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        read_revocations(f"jti ok\n{line}\n".encode())


def test_a_file_that_is_no_text_is_malformed() -> None:
    with pytest.raises(ValueError, match="UTF-8"):
        read_revocations(b"jti \xff")
