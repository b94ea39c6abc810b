"""Whose request it is: what a proxy says counts if it is trusted, and what anybody else says does not."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from handrail.console.web.client_address import client_address
from handrail.mesh.setting_parsers import networks

PROXY, CLIENT = "10.0.0.1", "203.0.113.7"
TRUSTED = networks("10.0.0.0/24,2001:db8:1::/64,127.0.0.1")


def address(*said: tuple[str, str], peer: str = PROXY) -> str:
    return client_address(
        peer, Headers(raw=[(name.lower().encode(), value.encode("latin-1")) for name, value in said]), TRUSTED
    )


NAMED = {
    "one": ("X-Forwarded-For", CLIENT),
    "with a port": ("X-Forwarded-For", f"{CLIENT}:4711"),
    "mapped": ("X-Forwarded-For", f"::ffff:{CLIENT}"),
    "what the client says before it": ("X-Forwarded-For", f"198.51.100.1, unknown,, {CLIENT}"),
    "through two proxies": ("X-Forwarded-For", f"198.51.100.1,{CLIENT} , 10.0.0.9,2001:db8:1::5"),
    "an element": ("Forwarded", f"for={CLIENT}"),
    "with more": ("Forwarded", f'proto=https;For="{CLIENT}:4711";by=_me;host="a,b;for=1.2.3.4"'),
    "elements": ("Forwarded", f'for=198.51.100.1, for={CLIENT};proto=http , for="[2001:db8:1::5]:80"'),
    "after what is hidden": ("Forwarded", f"for=unknown, for=_hidden, for={CLIENT}"),
}


@pytest.mark.parametrize("case", NAMED)
def test_the_last_address_that_is_no_proxys_counts(case: str) -> None:
    assert address(NAMED[case]) == CLIENT
    assert address(NAMED[case], peer=f"::ffff:{PROXY}") == CLIENT
    assert address(NAMED[case], peer="198.51.100.99") == "198.51.100.99"
    assert client_address(PROXY, Headers({NAMED[case][0]: NAMED[case][1]}), ()) == PROXY


@pytest.mark.parametrize("said", ["2001:db8::7", "[2001:db8::7]", "[2001:db8::7]:80"])
def test_addresses_of_either_kind_count(said: str) -> None:
    assert address(("X-Forwarded-For", said)) == "2001:db8::7"
    assert address(("Forwarded", f'for="{said}"')) == "2001:db8::7"


def test_lines_of_a_header_are_one_list() -> None:
    assert address(("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-For", CLIENT)) == CLIENT
    assert address(("Forwarded", "for=198.51.100.1"), ("Forwarded", f"for={CLIENT}")) == CLIENT


MALFORMED = {
    "nothing": [],
    "empty": [("X-Forwarded-For", ""), ("Forwarded", "")],
    "a name": [("X-Forwarded-For", f"{CLIENT}, example.com")],
    "no end": [("X-Forwarded-For", f"{CLIENT},")],
    "a number": [("X-Forwarded-For", "3405803783")],
    "too large": [("X-Forwarded-For", "203.0.113.777")],
    "a zone": [("X-Forwarded-For", "fe80::1%eth0")],
    "an odd port": [("X-Forwarded-For", f"{CLIENT}:x")],
    "other digits": [("X-Forwarded-For", "²03.0.113.7")],
    "hidden": [("Forwarded", f"for={CLIENT}, for=_hidden")],
    "unknown": [("Forwarded", "for=unknown")],
    "no quotes": [("Forwarded", "for=[2001:db8::7]")],
    "an open quote": [("Forwarded", f'for="{CLIENT}')],
    "an open quote before it": [("Forwarded", f'for="x, for={CLIENT}')],
    "for nobody": [("Forwarded", "proto=https")],
    "for two": [("Forwarded", f"for={CLIENT};for=198.51.100.1")],
    "spaces": [("Forwarded", f"for = {CLIENT}")],
    "proxies alone": [("X-Forwarded-For", "10.0.0.3, 10.0.0.2")],
    "two that differ": [("X-Forwarded-For", CLIENT), ("Forwarded", "for=198.51.100.1")],
    "one that can't be read": [("X-Forwarded-For", CLIENT), ("Forwarded", "for=unknown")],
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_can_not_be_read_counts_as_the_proxys_own(case: str) -> None:
    assert address(*MALFORMED[case]) == PROXY


def test_two_headers_that_agree_are_one() -> None:
    assert address(("X-Forwarded-For", f"1.2.3.4, {CLIENT}"), ("Forwarded", f"for={CLIENT}")) == CLIENT


def test_a_long_header_is_read_at_once() -> None:
    assert address(("Forwarded", 'for="' + "\\x" * 30_000)) == PROXY
    assert address(("Forwarded", "a=b;" * 15_000)) == PROXY
    assert address(("X-Forwarded-For", "1.2.3.4," * 8_000 + CLIENT)) == CLIENT


@pytest.mark.parametrize("text", ["example.com", "10.0.0.1/8", "10.0.0.0/33", "*", "::/129"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an address or network"):
        networks(text)
