"""The header of a token, checked before any key is looked at. Pure; nothing of it is trusted.

It chooses neither the algorithm nor the key: it can only say which of the known keys to check the signature with.
Addresses and keys in it (`jku`, `x5u`, `jwk`, `x5c`) are not looked at.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass

from handrail.coordinator.api.claims import unauthenticated
from handrail.coordinator.api.tokens.keys import ALGORITHMS, MAX_KID

MAX_TOKEN = 16 << 10
"""The longest token, in bytes."""

_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""The `typ` of tokens for access (RFC 7519 and RFC 9068). Others, such as logout tokens, are for something else."""


@dataclass(frozen=True, slots=True)
class Header:
    """The algorithm that a token claims, and the id of its key; empty if it names none."""

    algorithm: str
    kid: str


def read_header(token: str) -> Header:
    """Reads a token's header; raises UNAUTHENTICATED with the reason."""
    if len(token) > MAX_TOKEN:
        raise unauthenticated(f"the bearer token is longer than {MAX_TOKEN} bytes")
    header = _decoded(token.partition(".")[0])
    if "crit" in header or "b64" in header:
        # RFC 7515, section 4.1.11: whoever does not understand an extension that is critical must refuse the token.
        raise unauthenticated("the bearer token's header has extensions that are not supported")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise unauthenticated('the bearer token is not for access: its header\'s "typ" must be JWT or at+jwt')
    algorithm, kid = header.get("alg"), header.get("kid", "")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise unauthenticated(f"the bearer token's algorithm must be one of {', '.join(ALGORITHMS)}")
    if not isinstance(kid, str) or len(kid) > MAX_KID:
        raise unauthenticated(f'the bearer token\'s "kid" must be a string of at most {MAX_KID} characters')
    return Header(algorithm, kid)


def _decoded(part: str) -> Mapping[str, object]:
    """Decodes the first part of a token, leniently: the verification of the signature refuses what is not base64url."""
    try:
        header: object = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise unauthenticated("the bearer token is not a JSON Web Token")
    return header
