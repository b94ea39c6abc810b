"""What a browser keeps of a sign-in that was begun: it opens once, in time, for its own answer, and tells nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from handrail.console.openid import begun as module
from handrail.console.openid.begun import LONGEST, Begun, NotBegun, Seal

NOW = datetime(2026, 11, 28, 10, tzinfo=UTC)
CALLBACK = "https://console.example.com/sign-in/callback"


def test_it_opens_once() -> None:
    seal, begun = Seal(), Begun(CALLBACK, "/flows")
    sealed = seal.close(begun, NOW)
    assert seal.open(sealed, state=begun.state, now=NOW + LONGEST) == begun
    with pytest.raises(NotBegun, match="counts once"):
        seal.open(sealed, state=begun.state, now=NOW)


def test_it_opens_for_its_own_answer_alone_and_stays_closed_until_then() -> None:
    seal, begun, other = Seal(), Begun(CALLBACK, "/"), Begun(CALLBACK, "/")
    sealed = seal.close(begun, NOW)
    for state in ("", other.state, begun.state[:-1], "\u0441"):
        with pytest.raises(NotBegun, match="another sign-in"):
            seal.open(sealed, state=state, now=NOW)
    assert seal.open(sealed, state=begun.state, now=NOW) == begun


def test_it_opens_in_time_and_by_the_console_that_sealed_it() -> None:
    seal, begun = Seal(), Begun(CALLBACK, "/")
    sealed = seal.close(begun, NOW)
    late = NOW + LONGEST + timedelta(seconds=1)
    cases = [(seal, sealed, late), (Seal(), sealed, NOW), (seal, sealed[:-4] + "AAA=", NOW), (seal, "", NOW)]
    for other, text, now in cases:
        with pytest.raises(NotBegun, match="not begun in this browser"):
            other.open(text, state=begun.state, now=now)


def test_it_tells_nothing_and_fits_a_cookie() -> None:
    begun = Begun(CALLBACK, "/" + "a" * 1_999)
    sealed = Seal().close(begun, NOW)
    assert len(sealed) < 4_000
    assert not [each for each in (begun.state, begun.nonce, begun.verifier, "aaaa") if each in sealed]


def test_each_is_of_its_own() -> None:
    first, second = Begun(CALLBACK, "/"), Begun(CALLBACK, "/")
    values = {first.state, first.nonce, first.verifier, second.state, second.nonce, second.verifier}
    assert len(values) == 6
    assert all(len(each) >= 43 for each in values)


def test_a_flood_takes_no_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_ENDED", 3)
    seal = Seal()
    for _ in range(10):
        begun = Begun(CALLBACK, "/")
        seal.open(seal.close(begun, NOW), state=begun.state, now=NOW)
        seal.close(Begun(CALLBACK, "/"), NOW)
    assert len(seal._ended) == 3
