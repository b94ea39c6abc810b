"""Authentication: the caller of an RPC, and what the claims of a verified token say about it.

`tokens` verifies tokens. Claims: `sub` (the person or program), `roles`, and optionally `agent` (the agent that the
bearer speaks for).
"""

from __future__ import annotations

from contextvars import ContextVar

from handrail.coordinator.decide.caller import Caller
from handrail.mesh.errors import HandrailError
from handrail.mesh.wire.identity import canonical, why_ambiguous
from handrail.mesh.wire.subjects import COORDINATOR, NAME
from handrail.v1.error_reason_pb2 import ErrorReason

ISSUER = "handrail"
"""The `iss` that a token must have, unless the settings name another."""

AUDIENCE = "handrail"
"""The `aud` that a token must have, unless the settings name another."""

MAX_SUBJECT = 256
"""The longest identity, in characters: the limit of `handrail.v1.Event.requester`."""

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


def unauthenticated(text: str) -> HandrailError:
    """Returns the error for a call without a verified caller."""
    return HandrailError(ErrorReason.ERROR_REASON_UNAUTHENTICATED, text)


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
    if canonical(subject) == COORDINATOR:
        raise unauthenticated(f'the token\'s "sub" is {COORDINATOR}, which is reserved for the coordinator itself')
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise unauthenticated('the token\'s "roles" must be a list of strings')
    if not isinstance(agent, str) or (agent and (not NAME.fullmatch(agent) or agent == COORDINATOR)):
        raise unauthenticated('the token\'s "agent" is not a valid agent name')
    return Caller(subject, frozenset(roles), agent)
