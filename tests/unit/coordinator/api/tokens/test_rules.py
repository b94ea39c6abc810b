"""What a token's claims must say: by whom, for whom, from when and until when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.coordinator.api.tokens.rules import LEEWAY, MAX_LIFETIME, ClaimNames, Rules, judge, standard
from handrail.mesh.errors import HandrailError

NOW = datetime(2026, 11, 22, 21, tzinfo=UTC)
SECOND = timedelta(seconds=1)
RULES = Rules()


def at(moment: datetime) -> float:
    return moment.timestamp()


def claims(**changes: Any) -> dict[str, Any]:
    good = {"iss": "handrail", "aud": "handrail", "iat": at(NOW), "exp": at(NOW + timedelta(hours=1))}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def reason(found: dict[str, Any], rules: Rules = RULES) -> str:
    """Why these claims are refused; empty if they are accepted."""
    try:
        judge(found, rules, NOW)
    except HandrailError as error:
        return error.reason_name
    return ""


def test_good_claims_say_from_when_and_until_when() -> None:
    validity = judge(claims(jti="7"), Rules(), NOW)
    assert (validity.issued_at, validity.expires_at, validity.token_id) == (NOW, NOW + timedelta(hours=1), "7")


REFUSED: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "elsewhere"},
    "an issuer that is a list": {"iss": ["handrail"]},
    "an issuer that only begins alike": {"iss": "handrail/"},
    "no issuer": {"iss": None},
    "another audience": {"aud": "elsewhere"},
    "audiences without ours": {"aud": ["a", "b"]},
    "an audience that holds ours": {"aud": "handrail2"},
    "an audience that is an object": {"aud": {"handrail": True}},
    "no audience": {"aud": None},
    "no expiry": {"exp": None},
    "an expiry in text": {"exp": "1795381200"},
    "an expiry that is true": {"exp": True},
    "an endless expiry": {"exp": float("inf")},
    "an expiry that is no number": {"exp": float("nan")},
    "an expiry before time began": {"exp": -1},
    "an expiry in the year 9999": {"exp": 253402300799},
    "an expiry beyond all years": {"exp": 10**30},
    "issued in the future": {"iat": at(NOW + LEEWAY + SECOND)},
    "issued in text": {"iat": "now"},
    "not valid yet": {"nbf": at(NOW + LEEWAY + SECOND)},
    "not before a text": {"nbf": "now"},
    "an id that is a number": {"jti": 7},
    "an id without end": {"jti": "x" * 257},
    "valid for longer than allowed": {"exp": at(NOW + MAX_LIFETIME + SECOND)},
    "issued long ago and valid for longer than allowed": {
        "iat": at(NOW - MAX_LIFETIME), "exp": at(NOW + SECOND),
    },
    "valid for longer than allowed from now on, not saying from when": {
        "iat": None, "exp": at(NOW + MAX_LIFETIME + LEEWAY + SECOND),
    },
    "issued ahead of time to hide its lifetime": {
        "iat": at(NOW + 2 * MAX_LIFETIME), "exp": at(NOW + 2 * MAX_LIFETIME + SECOND),
    },
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_claims_that_break_a_rule_are_refused(case: str) -> None:
    assert reason(claims(**REFUSED[case])) == "UNAUTHENTICATED"


ACCEPTED: dict[str, dict[str, Any]] = {
    "one of several audiences": {"aud": ["account", "handrail"]},
    "expired within the leeway": {"exp": at(NOW - LEEWAY + SECOND)},
    "issued within the leeway": {"iat": at(NOW + LEEWAY)},
    "no time of issue": {"iat": None},
    "valid for as long as allowed": {"exp": at(NOW + MAX_LIFETIME)},
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_claims_at_the_edge_of_a_rule_are_accepted(case: str) -> None:
    assert reason(claims(**ACCEPTED[case])) == ""


def test_expired_claims_are_refused_as_such() -> None:
    assert reason(claims(exp=at(NOW - LEEWAY))) == "TOKEN_EXPIRED"


def test_a_claim_that_the_settings_require_must_be_there() -> None:
    rules = Rules(required=("jti", "realm_access.roles"))
    assert reason(claims(jti="7"), rules) == "UNAUTHENTICATED"
    assert reason(claims(jti="7", realm_access={"roles": []}), rules) == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(["iss", "aud", "exp", "iat", "nbf", "jti"]), JSON)
def test_no_value_of_a_claim_breaks_the_rules(name: str, value: Any) -> None:
    found = {**claims(), name: value}
    assert reason(found) in ("", "UNAUTHENTICATED", "TOKEN_EXPIRED")


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_no_accepted_token_is_valid_for_longer_than_allowed(issued: int, expires: int) -> None:
    if reason(claims(iat=issued, exp=expires)) == "":
        assert timedelta(0) <= timedelta(seconds=expires - at(NOW)) + LEEWAY <= MAX_LIFETIME + 2 * LEEWAY
        assert timedelta(seconds=expires - issued) <= MAX_LIFETIME


KEYCLOAK = {
    "sub": "f3f1", "preferred_username": "olga", "realm_access": {"roles": ["operator", "offline_access"]},
    "resource_access": {"handrail": {"roles": ["finance"]}}, "https://example.com/agent": "ledger",
}  # fmt: skip


def test_claims_are_found_under_the_names_that_the_provider_gives_them() -> None:
    names = ClaimNames(
        subject="preferred_username", roles="realm_access.roles", grants="resource_access.handrail.roles",
        agent="https://example.com/agent",
    )  # fmt: skip
    assert standard(KEYCLOAK, names) == {
        "sub": "olga", "roles": ["operator", "offline_access"], "handrail": ["finance"], "agent": "ledger",
    }  # fmt: skip


@pytest.mark.parametrize("path", ["realm_access.groups", "sub.roles", "resource_access.other.roles", "nothing"])
def test_a_path_that_leads_nowhere_gives_no_claim(path: str) -> None:
    assert standard(KEYCLOAK, ClaimNames(roles=path)) == {"sub": "f3f1"}


def test_without_the_claim_of_the_subject_nobody_is_named() -> None:
    with pytest.raises(HandrailError, match='no "email" claim'):
        standard(KEYCLOAK, ClaimNames(subject="email"))
