"""What the claims of a verified token say about its bearer: who it is, and what it is granted.

Claims: `sub` (the person or program), `handrail` (grants such as `operator@refund`), `roles` (each on every flow type),
and `agent` (the agent that the bearer speaks for).
"""

from __future__ import annotations

from collections.abc import Mapping

from handrail.coordinator.decide import grants
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.grants import Grant
from handrail.mesh.errors import HandrailError
from handrail.mesh.permissions import RESERVED
from handrail.mesh.wire.identity import canonical, why_ambiguous
from handrail.mesh.wire.subjects import COORDINATOR, NAME
from handrail.v1.error_reason_pb2 import ErrorReason

ISSUER = "handrail"
"""The `iss` that a token must have, unless the settings name another."""

AUDIENCE = "handrail"
"""The `aud` that a token must have, unless the settings name another."""

GRANTS = "handrail"
"""The claim that lists grants. A token that has it is granted only what its claims name."""

ROLES = "roles"
"""The claim that lists roles which hold on every flow type."""

MAX_SUBJECT = 256
"""The longest identity, in characters: the limit of `handrail.v1.Event.requester`."""

_SHOWN = 64
"""How much of a malformed grant an error repeats, in characters."""


def caller_of(claims: Mapping[str, object]) -> Caller:
    """Returns the caller that a verified token's claims name, with its grants.

    Without the claim `handrail`, the bearer may read every flow type and has what `roles` grants. With it, the bearer
    has the union of what both claims grant, and nothing else. Raises UNAUTHENTICATED or AMBIGUOUS_NAME if the claims
    name nobody, or if one of them is malformed.
    """
    return Caller(_subject(claims["sub"]), _grants(claims), _agent(claims.get("agent", "")))


def unauthenticated(text: str) -> HandrailError:
    """Returns the error for a call without a verified caller."""
    return HandrailError(ErrorReason.ERROR_REASON_UNAUTHENTICATED, text)


def _subject(subject: object) -> str:
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
    if canonical(subject) == COORDINATOR:
        raise unauthenticated(f'the token\'s "sub" is {COORDINATOR}, which is reserved for the coordinator itself')
    return subject


def _grants(claims: Mapping[str, object]) -> frozenset[Grant]:
    roles = _texts(claims.get(ROLES, []), ROLES)
    if GRANTS not in claims:
        return grants.of_roles(roles)
    named = frozenset(_grant(text) for text in _texts(claims[GRANTS], GRANTS))
    return named | grants.of_roles(roles) if roles else named


def _grant(text: str) -> Grant:
    try:
        return grants.parsed(text)
    except ValueError as error:
        shown = ascii(text[:_SHOWN])
        raise unauthenticated(f'the token\'s "{GRANTS}" has the entry {shown}: {error}') from None


def _texts(value: object, claim: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise unauthenticated(f'the token\'s "{claim}" must be a list of strings')
    return value


def _agent(agent: object) -> str:
    if not isinstance(agent, str) or (agent and (not NAME.fullmatch(agent) or agent in RESERVED)):
        raise unauthenticated('the token\'s "agent" is not a valid agent name')
    return agent
