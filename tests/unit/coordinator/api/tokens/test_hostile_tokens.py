"""Whatever a stranger sends as a token is refused as such: it chooses neither key nor algorithm, and breaks nothing."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from handrail.coordinator.api.tokens import TokenVerifier
from handrail.coordinator.api.tokens.header import MAX_TOKEN
from handrail.coordinator.api.tokens.keys import ALGORITHMS
from handrail.coordinator.api.tokens.settings import TokenSettings
from handrail.mesh.errors import HandrailError
from tests.support.tokens import Private, forgeries, jwk, key_set, part, pem, private_key, signed

KEYS = {algorithm: private_key(algorithm) for algorithm in ALGORITHMS}


def verifier(folder: Path, *keys: Private, **settings: object) -> TokenVerifier:
    """One that knows these keys as PEM files."""
    files = []
    for number, key in enumerate(keys):
        files.append(folder / f"{number}.pem")
        files[-1].write_bytes(pem(key))
    return TokenVerifier(TokenSettings(**settings), files)  # type: ignore[arg-type]


def with_key_set(folder: Path, *keys: dict[str, object]) -> TokenVerifier:
    """One that knows the keys of this key set."""
    (folder / "keys.json").write_bytes(key_set(*keys))
    return TokenVerifier(TokenSettings(key_set=str(folder / "keys.json")))


async def why_refused(verifier: TokenVerifier, token: str) -> str:
    """The reason; AssertionError if the token is accepted."""
    try:
        verified = await verifier.verify(token)
    except HandrailError as error:
        return error.reason_name
    raise AssertionError(f"accepted: {verified}")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_of_each_algorithm_proves_its_subject(algorithm: str, tmp_path: Path) -> None:
    verified = await verifier(tmp_path, *KEYS.values()).verify(signed(KEYS[algorithm]))
    assert (verified.caller.subject, verified.issuer) == ("olga", "handrail")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_no_forgery_is_accepted(algorithm: str, tmp_path: Path) -> None:
    known = verifier(tmp_path, KEYS[algorithm])
    for forgery in forgeries(KEYS[algorithm]):
        assert await why_refused(known, forgery.token) == "UNAUTHENTICATED", forgery.trick


async def test_the_header_does_not_choose_the_algorithm_of_a_key(tmp_path: Path) -> None:
    known = verifier(tmp_path, KEYS["RS256"])
    _, body, tail = signed(KEYS["RS256"]).split(".")
    for algorithm in ("RS384", "PS256", "HS256", "ES256", "EdDSA", "rs256", ""):
        assert await why_refused(known, f"{part({'alg': algorithm})}.{body}.{tail}") == "UNAUTHENTICATED", algorithm


async def test_an_algorithm_that_is_not_allowed_is_refused_although_its_key_is_in_the_set(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(key_set(jwk(KEYS["RS256"], "r"), jwk(KEYS["ES256"], "e")))
    known = TokenVerifier(TokenSettings(key_set=str(tmp_path / "keys.json"), algorithms=("ES256",)))
    assert (await known.verify(signed(KEYS["ES256"], {"kid": "e"}))).caller.subject == "olga"
    assert await why_refused(known, signed(KEYS["RS256"], {"kid": "r"})) == "UNAUTHENTICATED"


async def test_a_key_id_names_one_of_the_known_keys_and_nothing_else(tmp_path: Path) -> None:
    one, other = private_key("EdDSA"), private_key("EdDSA")
    known = with_key_set(tmp_path, jwk(one, "one"), jwk(other, "other"))
    assert (await known.verify(signed(one, {"kid": "one"}))).caller.subject == "olga"
    assert (await known.verify(signed(one))).caller.subject == "olga"
    for kid in ("other", "", "ONE", "one ", "../one", str(tmp_path / "keys.json")):
        refused = await why_refused(known, signed(one, {"kid": kid})) if kid else "UNAUTHENTICATED"
        assert refused == "UNAUTHENTICATED", kid


async def test_of_two_keys_with_one_id_each_verifies_its_own_tokens_alone(tmp_path: Path) -> None:
    one, other, third = (private_key("ES256") for _ in range(3))
    known = with_key_set(tmp_path, jwk(one, "same"), jwk(other, "same"), jwk(KEYS["RS256"], "same"))
    for key in (one, other, KEYS["RS256"]):
        assert (await known.verify(signed(key, {"kid": "same"}))).caller.subject == "olga"
    assert await why_refused(known, signed(third, {"kid": "same"})) == "UNAUTHENTICATED"


async def test_a_token_at_the_size_limit_is_verified_and_one_beyond_it_is_not(tmp_path: Path) -> None:
    known = verifier(tmp_path, KEYS["EdDSA"])
    short = signed(KEYS["EdDSA"], filler="")
    room = (MAX_TOKEN - len(short)) * 3 // 4 - 4
    assert (await known.verify(signed(KEYS["EdDSA"], filler="x" * room))).caller.subject == "olga"
    assert await why_refused(known, signed(KEYS["EdDSA"], filler="x" * (room + 200))) == "UNAUTHENTICATED"


CLAIMS = {
    "not an object": b"[]",
    "not JSON": b"{",
    "not text": b"\xff\xfe",
    "nested without end": b"[" * 5000,
    "an endless expiry": b'{"sub": "olga", "iss": "handrail", "aud": "handrail", "exp": Infinity}',
    "an expiry that is no number": b'{"sub": "olga", "iss": "handrail", "aud": "handrail", "exp": NaN}',
}


@pytest.mark.parametrize("case", CLAIMS)
async def test_signed_claims_that_make_no_sense_are_refused(case: str, tmp_path: Path) -> None:
    key = KEYS["EdDSA"]
    message = f"{part({'alg': 'EdDSA'})}.{base64.urlsafe_b64encode(CLAIMS[case]).decode().rstrip('=')}"
    signature = key.sign(message.encode())  # type: ignore[call-arg]
    token = f"{message}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
    assert await why_refused(verifier(tmp_path, key), token) == "UNAUTHENTICATED"


@given(st.data())
async def test_no_change_of_a_good_token_is_accepted_and_none_breaks_the_verifier(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    key = KEYS[data.draw(st.sampled_from(ALGORITHMS))]
    known = verifier(tmp_path_factory.mktemp("keys"), key)
    token = signed(key)
    at = data.draw(st.integers(0, len(token) - 1))
    cut = data.draw(st.integers(0, 3))
    put = data.draw(st.text(st.characters(codec="ascii"), max_size=3))
    changed = token[:at] + put + token[at + cut :]
    # Padding at the end of a part changes nothing.
    assume(changed.replace("=", "") != token)
    assert await why_refused(known, changed) == "UNAUTHENTICATED"


@given(st.text(max_size=200))
async def test_no_text_breaks_the_verifier(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    known = verifier(tmp_path_factory.mktemp("keys"), KEYS["EdDSA"])
    assert await why_refused(known, text) == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    "subject", ["coordinator", "Coordinator", " coordinator\u200b", "agent/x", "Agent/ledger", " agent/x"]
)
async def test_a_subject_that_is_kept_for_the_coordinator_or_agents_is_refused(subject: str, tmp_path: Path) -> None:
    known = verifier(tmp_path, KEYS["EdDSA"])
    assert await why_refused(known, signed(KEYS["EdDSA"], sub=subject)) == "UNAUTHENTICATED"


async def test_a_key_file_that_changes_counts_at_once_and_a_broken_one_not_at_all(tmp_path: Path) -> None:
    old, new = private_key("EdDSA"), private_key("EdDSA")
    known = verifier(tmp_path, old)
    generation = known.keys.generation
    assert (await known.verify(signed(old))).caller.subject == "olga"
    (tmp_path / "0.pem").write_bytes(pem(new))
    assert await why_refused(known, signed(old)) == "UNAUTHENTICATED"
    assert (await known.verify(signed(new))).caller.subject == "olga"
    assert known.keys.generation == generation + 1
    (tmp_path / "0.pem").write_text("nothing")
    assert await why_refused(known, signed(new)) == "VERIFICATION_UNAVAILABLE"
    (tmp_path / "0.pem").unlink()
    assert await why_refused(known, signed(new)) == "VERIFICATION_UNAVAILABLE"
    (tmp_path / "0.pem").write_bytes(pem(old))
    assert (await known.verify(signed(old))).caller.subject == "olga"


async def test_revocations_count_as_soon_as_their_file_says_so_and_a_broken_file_closes_the_door(
    tmp_path: Path,
) -> None:
    listed = tmp_path / "revoked"
    listed.write_text("# nobody yet\n")
    known = verifier(tmp_path, KEYS["EdDSA"], revocations=listed)
    token, twin = signed(KEYS["EdDSA"], jti="one"), signed(KEYS["EdDSA"], jti="two")
    assert (await known.verify(token)).validity.token_id == "one"
    listed.write_text("jti one\n")
    assert await why_refused(known, token) == "UNAUTHENTICATED"
    assert (await known.verify(twin)).validity.token_id == "two"
    for broken in ("jti\n", "subject olga\n", "subject yesterday olga\n", "anybody\n"):
        listed.write_text(broken)
        assert await why_refused(known, twin) == "VERIFICATION_UNAVAILABLE", broken
    listed.unlink()
    assert await why_refused(known, twin) == "VERIFICATION_UNAVAILABLE"


async def test_a_token_that_lives_longer_than_allowed_is_refused(tmp_path: Path) -> None:
    known = verifier(tmp_path, KEYS["EdDSA"])
    far = int((datetime.now(UTC) + timedelta(days=30)).timestamp())
    assert await why_refused(known, signed(KEYS["EdDSA"], exp=far)) == "UNAUTHENTICATED"
    assert await why_refused(known, signed(KEYS["EdDSA"], exp=far, iat=None)) == "UNAUTHENTICATED"
    assert await why_refused(known, signed(KEYS["EdDSA"], exp=far, iat=far - 60)) == "UNAUTHENTICATED"
