"""What a token's claims must say before anybody asks who it names. Pure: the time is an argument.

RFC 7519 defines the claims; RFC 8725 says what to check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from handrail.coordinator.api.claims import AUDIENCE, ISSUER, unauthenticated
from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason

LEEWAY = timedelta(seconds=5)
"""The largest accepted difference between the clocks of issuer and coordinator."""

MAX_LIFETIME = timedelta(hours=24)
"""The default for the longest time that a token may be valid for."""

MAX_TOKEN_ID = 256
"""The longest `jti`, in characters."""

_LAST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


@dataclass(frozen=True, slots=True)
class ClaimNames:
    """Which claims hold what the coordinator needs. A name with dots is a path: `realm_access.roles`."""

    subject: str = "sub"
    roles: str = "roles"
    grants: str = "handrail"
    agent: str = "agent"


@dataclass(frozen=True, slots=True)
class Rules:
    """What tokens must say. `required` are claims that must be there beside `iss`, `aud`, `exp` and the subject."""

    issuer: str = ISSUER
    audience: str = AUDIENCE
    max_lifetime: timedelta = MAX_LIFETIME
    required: tuple[str, ...] = ()
    names: ClaimNames = ClaimNames()


@dataclass(frozen=True, slots=True)
class Validity:
    """When a token was issued (None: it does not say), until when it is valid, and its `jti` (may be empty)."""

    issued_at: datetime | None
    expires_at: datetime
    token_id: str


def judge(claims: Mapping[str, object], rules: Rules, now: datetime) -> Validity:
    """Returns a token's validity; raises TOKEN_EXPIRED, or UNAUTHENTICATED with the reason."""
    for name in ("iss", "aud", "exp", *rules.required):
        if _at(claims, name) is None:
            raise unauthenticated(f'the bearer token has no "{name}" claim')
    if claims["iss"] != rules.issuer:
        raise unauthenticated(f'the bearer token\'s "iss" must be {rules.issuer}')
    audience = claims["aud"]
    if audience != rules.audience and not (isinstance(audience, list) and rules.audience in audience):
        raise unauthenticated(f'the bearer token is for somebody else: its "aud" must be {rules.audience}')
    expires_at = _time(claims, "exp")
    issued_at = _time(claims, "iat") if claims.get("iat") is not None else None
    if expires_at <= now - LEEWAY:
        raise HandrailError(ErrorReason.ERROR_REASON_TOKEN_EXPIRED, "the bearer token has expired; get a new one")
    if issued_at is not None and issued_at > now + LEEWAY:
        raise unauthenticated('the bearer token\'s "iat" is in the future')
    if claims.get("nbf") is not None and _time(claims, "nbf") > now + LEEWAY:
        raise unauthenticated('the bearer token is not valid yet: its "nbf" is in the future')
    if expires_at - (now if issued_at is None else issued_at) > rules.max_lifetime or (
        expires_at - now > rules.max_lifetime + LEEWAY
    ):
        raise unauthenticated(
            f"the bearer token is valid for longer than {_hours(rules.max_lifetime)}, the most that is accepted"
        )
    token_id = claims.get("jti") or ""
    if not isinstance(token_id, str) or len(token_id) > MAX_TOKEN_ID:
        raise unauthenticated(f'the bearer token\'s "jti" must be a string of at most {MAX_TOKEN_ID} characters')
    return Validity(issued_at, expires_at, token_id)


def standard(claims: Mapping[str, object], names: ClaimNames) -> dict[str, object]:
    """Returns the claims that say who a token is for, under the names that `claims.caller_of` reads."""
    found = {
        "sub": _at(claims, names.subject),
        "roles": _at(claims, names.roles),
        "handrail": _at(claims, names.grants),
        "agent": _at(claims, names.agent),
    }
    if found["sub"] is None:
        raise unauthenticated(f'the bearer token has no "{names.subject}" claim')
    return {name: value for name, value in found.items() if value is not None}


def _at(claims: Mapping[str, object], name: str) -> object:
    """Returns the claim of this name, or what is at this path; None if there is nothing."""
    if name in claims:
        return claims[name]
    found: object = claims
    for part in name.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part)
    return found


def _time(claims: Mapping[str, object], name: str) -> datetime:
    seconds = claims[name]
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < _LAST:
        raise unauthenticated(f'the bearer token\'s "{name}" must be a time in seconds since 1970')
    return datetime.fromtimestamp(seconds, UTC)


def _hours(span: timedelta) -> str:
    return f"{span.total_seconds() / 3600:g} h"
