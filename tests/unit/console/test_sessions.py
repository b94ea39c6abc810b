"""Sessions: how many there are, and how they end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from handrail.console.web import sessions as module
from handrail.console.web.sessions import IDLE, LONGEST, Renewal, Session, Sessions, TooManySessions

NOW = datetime(2026, 11, 28, 10, tzinfo=UTC)


def begin(sessions: Sessions, subject: str = "vera", *, now: datetime = NOW) -> tuple[str, Session]:
    return sessions.begin(subject=subject, token="t", token_expires=now + timedelta(days=1), now=now)


def test_a_session_is_found_by_its_id_alone() -> None:
    sessions = Sessions()
    key, session = begin(sessions)
    assert sessions.find(key, NOW) is session
    assert sessions.find(key[:-1], NOW) is None
    assert sessions.find("", NOW) is None


def test_a_session_ends_when_its_person_is_idle() -> None:
    sessions = Sessions()
    key, session = begin(sessions)
    assert sessions.find(key, NOW + IDLE / 2)
    assert sessions.find(key, NOW + IDLE)
    assert sessions.find(key, NOW + 2 * IDLE) is None
    assert session.ended.is_set()


def test_what_a_page_asks_by_itself_keeps_no_session_alive() -> None:
    sessions = Sessions()
    key, _ = begin(sessions)
    assert sessions.find(key, NOW + IDLE * 0.9, counts_as_use=False)
    assert sessions.find(key, NOW + IDLE) is None


def test_a_session_ends_at_last() -> None:
    sessions = Sessions()
    key, _ = begin(sessions)
    now = NOW
    while now + IDLE / 2 < NOW + LONGEST:
        now += IDLE / 2
        assert sessions.find(key, now)
    assert sessions.find(key, NOW + LONGEST) is None


def test_a_session_ends_with_its_token() -> None:
    sessions = Sessions()
    key, _ = sessions.begin(subject="vera", token="t", token_expires=NOW + timedelta(minutes=1), now=NOW)
    assert sessions.find(key, NOW + timedelta(seconds=59))
    assert sessions.find(key, NOW + timedelta(minutes=1)) is None


def test_one_persons_oldest_session_gives_way() -> None:
    sessions = Sessions()
    keys = [begin(sessions)[0] for _ in range(module._MOST_OF_ONE_PERSON + 1)]
    assert sessions.find(keys[0], NOW) is None
    assert all(sessions.find(key, NOW) for key in keys[1:])


def test_a_console_that_is_full_takes_nobody_until_sessions_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 3)
    sessions = Sessions()
    for number in range(3):
        begin(sessions, f"person{number}")
    with pytest.raises(TooManySessions):
        begin(sessions, "one-more")
    begin(sessions, "one-more", now=NOW + IDLE)


def test_ending_all_sessions_of_a_person_leaves_the_others() -> None:
    sessions = Sessions()
    first, second, other = begin(sessions), begin(sessions), begin(sessions, "olga")
    sessions.end_all("vera")
    assert first[1].ended.is_set()
    assert second[1].ended.is_set()
    assert sessions.find(other[0], NOW)


def test_the_refresh_token_of_every_session_that_ends_is_given_to_be_revoked() -> None:
    revoked: list[str] = []
    sessions = Sessions(revoked.append)

    def begin_renewed(name: str, *, now: datetime = NOW) -> str:
        renewal = Renewal(f"of {name}", now + LONGEST, now + LONGEST)
        key, _ = sessions.begin(subject=name, token="t", token_expires=now, now=now, renewal=renewal)
        return key

    ended, idle, _, late = (begin_renewed(name) for name in ("ended", "idle", "everywhere", "late"))
    begin(sessions, "without renewal")
    sessions.end(ended)
    sessions.end(ended)
    sessions.end_all("everywhere")
    assert revoked == ["of ended", "of everywhere"]
    sessions.find(late, NOW + IDLE / 2)
    sessions.end_expired(NOW + IDLE)
    assert revoked == ["of ended", "of everywhere", "of idle"]
    assert sessions.find(idle, NOW) is None
    sessions.end_all()
    assert revoked[3:] == ["of late"]


def test_a_session_does_not_print_its_token() -> None:
    _, session = Sessions().begin(subject="vera", token="secret-token", token_expires=NOW + LONGEST, now=NOW)
    assert "secret-token" not in repr(session)
    assert session.form_token not in repr(session)
