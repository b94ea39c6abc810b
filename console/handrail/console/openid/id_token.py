"""The ID token: the provider's word that this sign-in is the one that was begun in this browser."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import datetime, timedelta

from authlib.oauth2.claims import ClaimsOption
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError, SecurityWarning
from joserfc.jwk import JWKRegistry, Key, KeySet

from handrail.console.openid.client import Client
from handrail.console.openid.provider import ProviderError
from handrail.console.openid.tokens import Tokens

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
"""Signatures that count: none whose key could be a secret or missing."""

LEEWAY = timedelta(minutes=1)
"""So much the provider's clock may differ."""


def check(client: Client, tokens: Tokens, key_set: Mapping[str, object], *, nonce: str, now: datetime) -> None:
    """Raises ProviderError unless the ID token is the provider's, and for this client, sign-in and access token."""
    try:
        # EdDSA is one of the coordinator's algorithms, under the name that providers use.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)
            token = jwt.decode(tokens.id_token, _keys(key_set), algorithms=ALGORITHMS)
        expected: dict[str, ClaimsOption] = {
            "iss": {"essential": True, "value": client.issuer},
            "aud": {"essential": True, "value": client.client_id},
        }
        known = {"nonce": nonce, "client_id": client.client_id, "access_token": tokens.access_token}
        claims = CodeIDToken(token.claims, token.header, expected, known)
        claims.validate(int(now.timestamp()), int(LEEWAY.total_seconds()))
    except (InvalidClaimError, MissingClaimError, ExpiredTokenError) as error:
        raise ProviderError(_why(client, error)) from None
    except (JoseError, ValueError, TypeError, RecursionError):
        raise ProviderError(f"{client.name} gives no ID token that is signed with its keys.") from None


def _keys(key_set: Mapping[str, object]) -> KeySet:
    """The public keys for signatures; others are passed over. Raises JoseError if none is left."""
    found = key_set.get("keys")
    return KeySet([key for each in (found if isinstance(found, list) else []) for key in _key(each)])


def _key(value: object) -> list[Key]:
    if not isinstance(value, dict) or value.get("kty") == "oct" or value.get("use") == "enc":
        return []
    try:
        return [JWKRegistry.import_key(value)]
    except (JoseError, ValueError, TypeError):
        return []


def _why(client: Client, error: JoseError) -> str:
    too_early = isinstance(error, InvalidClaimError) and error.claim in ("iat", "nbf")
    if too_early or isinstance(error, ExpiredTokenError):
        return f"The clocks of {client.name} and of this console differ by more than a minute: set them right."
    return f"The ID token of {client.name} is not for this sign-in: {error.description}."
