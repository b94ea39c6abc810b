"""Page tokens and page sizes."""

from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.coordinator.api.paging import (
    MAX_PAGE_BYTES,
    MAX_PAGE_SIZE,
    cursor_of,
    fitting,
    page_of,
    page_size,
    page_token,
    sequence_of,
)
from handrail.coordinator.lists.flows import Listed, Listing
from handrail.mesh.errors import HandrailError
from handrail.v1.flow_service_pb2 import Flow


def test_a_page_has_the_size_asked_for_within_bounds() -> None:
    assert [page_size(asked, 50) for asked in (0, 1, 500, 501, 1 << 30)] == [50, 1, 500, MAX_PAGE_SIZE, MAX_PAGE_SIZE]


@given(st.integers(1, (1 << 64) - 1), st.text())
def test_a_token_gives_its_cursor_back_to_its_own_listing(cursor: int, name: str) -> None:
    assert sequence_of(page_token(cursor, "flows", name), "flows", name) == cursor


def test_there_is_no_token_behind_the_last_page() -> None:
    assert page_token(0, "flows") == page_token("", "flows") == ""
    assert sequence_of("", "flows") == 0


@given(st.text(min_size=1))
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(HandrailError) as caught:
        cursor_of(token, "flows")
    assert caught.value.reason_name == "BAD_PAGE_TOKEN"


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "٣", str(1 << 64), "1" * 5000])
def test_a_forged_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(HandrailError) as caught:
        sequence_of(page_token(cursor, "flows"), "flows")
    assert caught.value.reason_name == "BAD_PAGE_TOKEN"


def test_a_token_of_another_listing_is_refused() -> None:
    token = page_token(7, "flows", "refund", 1)
    for other in (("flows", "refund", 2), ("flows", "", 1), ("approvals", "refund", 1), ("flows", "refund")):
        with pytest.raises(HandrailError, match="another listing"):
            sequence_of(token, *other)


def test_a_cut_token_is_refused() -> None:
    with pytest.raises(HandrailError):
        cursor_of(urlsafe_b64encode(b"123").decode(), "flows")


def test_a_page_holds_what_fits_into_one_answer() -> None:
    large = Flow(status_reason="x" * (MAX_PAGE_BYTES // 3))
    assert len(fitting([large] * 10, 10)) == 2
    assert len(fitting([Flow(status_reason="x" * 2 * MAX_PAGE_BYTES)] * 2, 2)) == 1
    assert len(fitting([Flow()] * 10, 4)) == 4


def test_a_page_that_was_cut_goes_on_where_it_was_cut() -> None:
    rows = tuple(Listed(number, cursor=100 - number) for number in range(4))
    large = Flow(status_reason="x" * (MAX_PAGE_BYTES // 2 - 100))
    page, cursor = page_of(Listing(rows, next_cursor=50), lambda _: large)
    assert (len(page), cursor) == (2, 99)
    page, cursor = page_of(Listing(rows, next_cursor=50), lambda _: Flow())
    assert (len(page), cursor) == (4, 50)
