"""Verification of bearer tokens: from the text that a stranger sent to the identity that it proves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import jwt

from handrail.coordinator.api.claims import caller_of, unauthenticated
from handrail.coordinator.api.tokens.header import Header, read_header
from handrail.coordinator.api.tokens.key_address import KeysUnavailable
from handrail.coordinator.api.tokens.keys import ALGORITHMS, Key
from handrail.coordinator.api.tokens.proven import Proven, ProvenTokens
from handrail.coordinator.api.tokens.revocations import NOTHING, Revocations
from handrail.coordinator.api.tokens.rules import Validity, judge, standard
from handrail.coordinator.api.tokens.settings import TokenSettings
from handrail.coordinator.decide.caller import Caller
from handrail.mesh.errors import HandrailError
from handrail.mesh.reread_file import Unreadable
from handrail.v1.error_reason_pb2 import ErrorReason

_SIGNATURES = jwt.PyJWS(algorithms=ALGORITHMS)
"""Verifies signatures of the allowed algorithms. Creating one takes longer than a verification."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a token proves: who calls, who says so, and for how long."""

    caller: Caller
    issuer: str
    validity: Validity


_verified: ContextVar[Verified] = ContextVar("verified")


def current_token() -> Verified:
    """Returns what the token of the current RPC proves; raises LookupError outside of one."""
    return _verified.get()


def set_token(verified: Verified) -> None:
    """Remembers the token for the rest of this RPC, which runs in its own task and so in its own context."""
    _verified.set(verified)


class TokenVerifier:
    """Verifies bearer tokens. `clock` is the time that tokens are judged by."""

    def __init__(
        self,
        settings: TokenSettings,
        pem_files: Sequence[Path] = (),
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Reads the keys; raises ValueError if a file can't be read or holds none."""
        self._rules = settings.rules
        self.keys = settings.key_ring(pem_files)
        self._revocations = settings.revocation_file()
        self._clock = clock
        self._proven = ProvenTokens()

    async def verify(self, token: str) -> Verified:
        """Returns what a token proves.

        Raises TOKEN_EXPIRED, UNAUTHENTICATED with the reason, AMBIGUOUS_NAME, or VERIFICATION_UNAVAILABLE if keys or
        revocations can't be read.
        """
        known = self._proven.find(token)
        header = read_header(token) if known is None else known.header
        try:
            keys = await self.keys.for_header(header)
        except KeysUnavailable:
            # Who found out has logged it, once: strangers can't fill the log by sending tokens.
            raise _unavailable() from None
        revoked = self.revocations()
        if known is not None and known.key not in keys:
            known = None
        key, claims = (known.key, known.claims) if known else _signed_claims(token, header, keys)
        validity = judge(claims, self._rules, self._clock())
        caller = known.caller if known else caller_of(standard(claims, self._rules.names))
        _refuse_revoked(revoked, validity, caller)
        if known is None:
            self._proven.keep(token, Proven(header, key, claims, caller))
        return Verified(caller, self._rules.issuer, validity)

    def revocations(self) -> Revocations:
        """Returns what is revoked; raises VERIFICATION_UNAVAILABLE if the file can't be read."""
        try:
            return NOTHING if self._revocations is None else self._revocations.value()
        except Unreadable:
            raise _unavailable() from None


def _signed_claims(token: str, header: Header, keys: Sequence[Key]) -> tuple[Key, dict[str, object]]:
    """Returns the key that has signed a token, and the token's claims."""
    for key in keys:
        try:
            payload: bytes = _SIGNATURES.decode(token, key.public, algorithms=[key.algorithm])
        except jwt.InvalidSignatureError:
            continue
        except (jwt.PyJWTError, ValueError):
            raise unauthenticated("the bearer token is not a JSON Web Token") from None
        return key, _claims(payload)
    named = " with the key that it names" if header.kid else ""
    raise unauthenticated(f"the bearer token is not signed{named} by any key that this coordinator knows")


def _claims(payload: bytes) -> dict[str, object]:
    try:
        claims: object = json.loads(payload)
    except (ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        raise unauthenticated("the bearer token's claims are not a JSON object")
    return claims


def _refuse_revoked(revoked: Revocations, validity: Validity, caller: Caller) -> None:
    if revoked.revoke(token_id=validity.token_id, subject=caller.subject, issued_at=validity.issued_at):
        raise unauthenticated("the bearer token was revoked; get a new one")


def _unavailable() -> HandrailError:
    return HandrailError(
        ErrorReason.ERROR_REASON_VERIFICATION_UNAVAILABLE,
        "this coordinator can't verify tokens for now; its log says why",
    )
