"""Authentication: bearer tokens (JWT, EdDSA) and the identity they prove.

The operator of the installation signs the tokens; the coordinator holds only public keys. Claims: `sub` (the person or
program), `roles`, `iss`, `aud`, `exp`, and optionally `agent` (the agent that the bearer speaks for) and `nbf`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from handrail.coordinator.decide.caller import Caller
from handrail.mesh.errors import HandrailError
from handrail.mesh.wire.identity import canonical, why_ambiguous
from handrail.mesh.wire.subjects import COORDINATOR, NAME
from handrail.v1.error_reason_pb2 import ErrorReason

ISSUER = "handrail"
"""The `iss` that a token must have."""

AUDIENCE = "handrail"
"""The `aud` that a token must have."""

ALGORITHM = "EdDSA"
"""The only accepted algorithm, regardless of a token's header (RFC 8725, section 3.1)."""

LEEWAY = timedelta(seconds=5)
"""The largest accepted difference between the clocks of issuer and coordinator."""

MAX_SUBJECT = 256
"""The longest identity, in characters: the limit of `handrail.v1.Event.requester`."""

_REQUIRED = ["sub", "exp", "iss", "aud"]


_caller: ContextVar[Caller] = ContextVar("caller")


def current_caller() -> Caller:
    """Returns the verified caller of the current RPC; raises LookupError outside of one."""
    return _caller.get()


def caller_if_known() -> Caller | None:
    """Returns the verified caller of the current RPC, or None if nobody was verified."""
    return _caller.get(None)


def set_caller(caller: Caller) -> None:
    """Remembers the caller for the rest of this RPC, which runs in its own task and so in its own context."""
    _caller.set(caller)


class TokenVerifier:
    """Verifies bearer tokens against several public keys, so that keys can be rotated without a gap."""

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        self._keys = tuple(keys)
        if not self._keys:
            raise ValueError("at least one public key is needed to verify tokens")

    @classmethod
    def from_files(cls, paths: Iterable[Path]) -> TokenVerifier:
        """Reads public keys in PEM form. Raises ValueError if a file holds none, OSError if one can't be read."""
        return cls(_read_public_key(path) for path in paths)

    def verify(self, token: str) -> Caller:
        """Returns the identity that a token proves.

        Raises TOKEN_EXPIRED, or UNAUTHENTICATED with the reason.
        """
        return caller_of(self._claims(token))

    def _claims(self, token: str) -> dict[str, object]:
        for key in self._keys:
            try:
                return jwt.decode(
                    token,
                    key,
                    algorithms=[ALGORITHM],
                    issuer=ISSUER,
                    audience=AUDIENCE,
                    leeway=LEEWAY,
                    options={"require": _REQUIRED},
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.ExpiredSignatureError:
                raise HandrailError(
                    ErrorReason.ERROR_REASON_TOKEN_EXPIRED, "the bearer token has expired; get a new one"
                ) from None
            except jwt.InvalidTokenError as error:
                raise unauthenticated(f"the bearer token is refused: {error}") from None
        raise unauthenticated("the bearer token is not signed by any key that this coordinator knows")


def unauthenticated(text: str) -> HandrailError:
    """Returns the error for a call without a verified caller."""
    return HandrailError(ErrorReason.ERROR_REASON_UNAUTHENTICATED, text)


def _read_public_key(path: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} holds no public key in PEM form: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{path} holds no Ed25519 public key")
    return key


def caller_of(claims: dict[str, object]) -> Caller:
    """Returns the caller that a token's claims name; raises UNAUTHENTICATED or AMBIGUOUS_NAME if they name none."""
    subject, roles, agent = claims["sub"], claims.get("roles", []), claims.get("agent", "")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT or not subject.isprintable():
        raise unauthenticated(f'the token\'s "sub" must be a string of 1 to {MAX_SUBJECT} printable characters')
    ambiguous = why_ambiguous(subject)
    if ambiguous:
        raise HandrailError(ErrorReason.ERROR_REASON_AMBIGUOUS_NAME, f'the token\'s "sub" is ambiguous: {ambiguous}')
    if not canonical(subject):
        raise unauthenticated('the token\'s "sub" has no visible character')
    # Flows that an agent starts have the requester agent/<name>: no person may pass for one.
    if canonical(subject).startswith("agent/"):
        raise unauthenticated('the token\'s "sub" begins with agent/, which is reserved for agents on the bus')
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise unauthenticated('the token\'s "roles" must be a list of strings')
    if not isinstance(agent, str) or (agent and (not NAME.fullmatch(agent) or agent == COORDINATOR)):
        raise unauthenticated('the token\'s "agent" is not a valid agent name')
    return Caller(subject, frozenset(roles), agent)
