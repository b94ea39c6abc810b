"""A token's signature is verified once; its times, its key and its revocation are looked at each time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from handrail.coordinator.api.tokens import TokenVerifier
from handrail.coordinator.api.tokens import verifier as module
from handrail.coordinator.api.tokens.header import Header
from handrail.coordinator.api.tokens.keys import key_of
from handrail.coordinator.api.tokens.proven import Proven, ProvenTokens
from handrail.coordinator.api.tokens.settings import TokenSettings
from handrail.coordinator.decide.caller import Caller
from handrail.mesh.errors import HandrailError
from tests.support.tokens import pem, private_key, signed

KEY, OTHER = private_key("EdDSA"), private_key("EdDSA")


class Clock:
    """A time that the test sets."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def signatures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens whose signature was looked at."""
    seen: list[str] = []
    real = module._signed_claims

    def counting(token: str, *rest: object) -> object:
        seen.append(token)
        return real(token, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_signed_claims", counting)
    return seen


def verifier(folder: Path, clock: Clock, **settings: object) -> TokenVerifier:
    """One that knows KEY."""
    (folder / "key.pem").write_bytes(pem(KEY))
    return TokenVerifier(TokenSettings(**settings), [folder / "key.pem"], clock=clock)  # type: ignore[arg-type]


async def refused(verifier: TokenVerifier, token: str) -> str:
    """The reason of the refusal."""
    with pytest.raises(HandrailError) as caught:
        await verifier.verify(token)
    return caught.value.reason_name


async def test_a_signature_is_verified_once(tmp_path: Path, signatures: list[str]) -> None:
    known = verifier(tmp_path, Clock())
    token = signed(KEY)
    assert await known.verify(token) == await known.verify(token)
    assert signatures == [token]


async def test_a_known_token_expires(tmp_path: Path) -> None:
    clock = Clock()
    known = verifier(tmp_path, clock)
    token = signed(KEY)
    expires_at = (await known.verify(token)).validity.expires_at
    clock.now = expires_at + timedelta(minutes=1)
    assert await refused(known, token) == "TOKEN_EXPIRED"


async def test_a_known_token_ends_with_its_key(tmp_path: Path) -> None:
    known = verifier(tmp_path, Clock())
    token = signed(KEY)
    await known.verify(token)
    (tmp_path / "key.pem").write_bytes(pem(OTHER))
    assert await refused(known, token) == "UNAUTHENTICATED"


async def test_a_known_token_is_revoked(tmp_path: Path) -> None:
    revoked = tmp_path / "revoked"
    revoked.write_text("")
    known = verifier(tmp_path, Clock(), revocations=revoked)
    token = signed(KEY, jti="t1")
    await known.verify(token)
    revoked.write_text("jti t1\n")
    assert await refused(known, token) == "UNAUTHENTICATED"


async def test_what_was_refused_is_not_kept(tmp_path: Path, signatures: list[str]) -> None:
    known = verifier(tmp_path, Clock())
    forged = signed(OTHER)
    for _ in range(2):
        assert await refused(known, forged) == "UNAUTHENTICATED"
    assert signatures == [forged, forged]
    assert len(known._proven) == 0


def test_the_token_that_was_unused_for_longest_is_forgotten() -> None:
    key, header = key_of(KEY.public_key()), Header("EdDSA", "")
    tokens = ProvenTokens(limit=2)
    for token in ("a", "b"):
        tokens.keep(token, Proven(header, key, {}, Caller(token)))
    assert tokens.find("a") is not None
    tokens.keep("c", Proven(header, key, {}, Caller("c")))
    assert [token for token in "abc" if tokens.find(token)] == ["a", "c"]


async def test_a_key_that_was_read_anew_is_the_same_key(tmp_path: Path, signatures: list[str]) -> None:
    known = verifier(tmp_path, Clock())
    token = signed(KEY)
    await known.verify(token)
    (tmp_path / "key.pem").write_bytes(pem(KEY) + b"\n")
    before = known.keys.generation
    await known.verify(token)
    assert known.keys.generation > before
    assert signatures == [token]
