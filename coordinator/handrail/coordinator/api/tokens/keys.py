"""The public keys that may sign tokens, from PEM and from JSON Web Key Sets (RFC 7517). Pure.

A key's type determines its algorithm; what a token's header or a key set says can only rule the key out (RFC 8725,
section 3.1).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

ALGORITHMS = ("EdDSA", "ES256", "RS256")
"""The algorithms of JSON Web Signature that keys may have: Ed25519, ECDSA on P-256, RSA with PKCS #1 v1.5."""

SMALLEST_RSA = 2048
"""The smallest RSA key, in bits (RFC 7518, section 3.3)."""

LARGEST_RSA = 8192
"""The largest RSA key, in bits: verifying with a larger one takes more than a millisecond."""

MAX_KEYS = 64
"""The most keys of one key set: a token without `kid` is checked against each of them."""

MAX_KID = 256
"""The longest key id, in characters."""

PublicKey: TypeAlias = Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey


@dataclass(frozen=True, slots=True)
class Key:
    """A public key with its algorithm. `kid` is its id in the key set; empty if it has none, as in a PEM file."""

    public: PublicKey
    algorithm: str
    kid: str = ""


def candidates(keys: Iterable[Key], *, algorithm: str, kid: str) -> list[Key]:
    """Returns the keys that may have signed a token with this header. A key without id may have signed any token."""
    return [key for key in keys if key.algorithm == algorithm and (not kid or not key.kid or key.kid == kid)]


def key_of(public: object, kid: str = "") -> Key:
    """Returns a key with the algorithm of its type; raises ValueError for an unsupported type, size or curve."""
    if isinstance(public, Ed25519PublicKey):
        return Key(public, "EdDSA", kid)
    if isinstance(public, EllipticCurvePublicKey):
        if not isinstance(public.curve, SECP256R1):
            raise ValueError(f"an elliptic curve key must be on P-256, not on {public.curve.name}")
        return Key(public, "ES256", kid)
    if isinstance(public, RSAPublicKey):
        if not SMALLEST_RSA <= public.key_size <= LARGEST_RSA:
            raise ValueError(f"an RSA key must have {SMALLEST_RSA} to {LARGEST_RSA} bits, not {public.key_size}")
        return Key(public, "RS256", kid)
    raise ValueError("it must be an Ed25519, P-256 or RSA public key")


def read_pem(data: bytes, algorithms: Collection[str]) -> tuple[Key, ...]:
    """Reads a public key in PEM form; raises ValueError if there is none that may be used."""
    try:
        public = load_pem_public_key(data)
    except ValueError as error:
        raise ValueError(f"holds no public key in PEM form: {error}") from None
    try:
        key = key_of(public)
    except ValueError as error:
        raise ValueError(f"holds no key that may be used: {error}") from None
    if key.algorithm not in algorithms:
        raise ValueError(f"holds no key that may be used: {key.algorithm} is not among the allowed algorithms")
    return (key,)


def read_key_set(data: bytes, algorithms: Collection[str]) -> tuple[Key, ...]:
    """Reads a JSON Web Key Set; leaves out keys that don't sign tokens, such as those for encryption.

    Raises ValueError if it is malformed or holds no key that may be used.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("is not a JSON Web Key Set: it is not JSON") from None
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ValueError('is not a JSON Web Key Set: it has no list "keys"')
    if len(listed) > MAX_KEYS:
        raise ValueError(f"has {len(listed)} keys; at most {MAX_KEYS} are read")
    keys = tuple(key for key in map(_read_jwk, listed) if key is not None and key.algorithm in algorithms)
    if not keys:
        raise ValueError(f"holds no key that may be used: none is for {', '.join(algorithms)}")
    return keys


def _read_jwk(jwk: object) -> Key | None:
    """Reads one key of a set; None if it is not for verifying tokens, not public, or not usable."""
    if not isinstance(jwk, Mapping) or not _is_for_verifying(jwk):
        return None
    kid = jwk.get("kid", "")
    if not isinstance(kid, str) or len(kid) > MAX_KID:
        return None
    try:
        key = key_of(jwt.PyJWK(dict(jwk)).key, kid)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return key if jwk.get("alg", key.algorithm) == key.algorithm else None


_PRIVATE = ("d", "k")
"""Members that only private and shared keys have. Whoever publishes them has no secret left to sign with."""


def _is_for_verifying(jwk: Mapping[object, object]) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    return (
        jwk.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and not any(member in jwk for member in _PRIVATE)
    )
