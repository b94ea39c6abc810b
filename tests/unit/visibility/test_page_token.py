"""Page tokens: whoever changes one, or takes that of another list, is told so."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.listing_pb2 import Total
from handrail.visibility.serve.page_token import Continued, Key, Listing

NOW = datetime(2026, 11, 28, 9, 30, tzinfo=UTC)
LISTING = Listing("stream", "flows", kinds=(datetime, int, str))
KEYS: tuple[Key, ...] = (NOW - timedelta(hours=1), 17, "ab" * 16)
TOKEN = LISTING.tokens(NOW, Total(items=1000, at_least=True))(KEYS)


def refusal(listing: Listing, token: str) -> str:
    with pytest.raises(HandrailError) as raised:
        listing.read(token)
    assert raised.value.reason == ErrorReason.ERROR_REASON_BAD_PAGE_TOKEN
    return raised.value.text


def test_a_token_says_where_its_list_goes_on() -> None:
    assert LISTING.read(TOKEN) == Continued(NOW, Total(items=1000, at_least=True), KEYS)
    assert LISTING.read("") is None
    without_time = LISTING.tokens(NOW, Total())((None, *KEYS[1:]))
    assert LISTING.read(without_time) == Continued(NOW, Total(), (None, *KEYS[1:]))


@pytest.mark.parametrize("identity", [("stream", "approvals"), ("another stream", "flows")])
def test_a_token_of_another_list_is_named(identity: tuple[str, str]) -> None:
    assert "another list" in refusal(Listing(*identity, kinds=(datetime, int, str)), TOKEN)


@pytest.mark.parametrize("place", range(0, len(TOKEN), 7))
def test_a_token_that_was_changed_was_not_issued(place: int) -> None:
    changed = TOKEN[:place] + ("A" if TOKEN[place] != "A" else "B") + TOKEN[place + 1 :]
    assert "was not issued" in refusal(LISTING, changed)
    assert "was not issued" in refusal(LISTING, TOKEN[:place] or "x")


@given(st.one_of(st.text(max_size=80), st.binary(max_size=80).map(lambda data: urlsafe_b64encode(data).decode())))
def test_whatever_a_stranger_sends_is_refused_or_the_beginning(token: str) -> None:
    if token:
        assert "was not issued" in refusal(LISTING, token)
