"""Guards around every RPC, outermost first: errors, authentication, deadline, contract. See also `budget_guard`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import timedelta
from secrets import token_hex

import grpc.aio
from google.protobuf.message import Message
from grpc_status import rpc_status

from handrail.coordinator.api import authorization
from handrail.coordinator.api.access import ACCESS
from handrail.coordinator.api.claims import unauthenticated
from handrail.coordinator.api.deadlines import set_deadline
from handrail.coordinator.api.error_status import to_status
from handrail.coordinator.api.interceptors import Call, MalformedRequest, Proceed
from handrail.coordinator.api.tokens.stream_end import while_valid
from handrail.coordinator.api.tokens.verifier import TokenVerifier, set_token
from handrail.mesh.contracts import Contracts, well_known
from handrail.mesh.errors import ContractViolation, HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason

_logger = logging.getLogger(__name__)

_BEARER = "bearer "


class ErrorGuard:
    """Turns errors into rich statuses. Unexpected ones are logged under an incident id; the caller sees only the id."""

    async def around(self, call: Call, proceed: Proceed) -> None:
        """See `Around`."""
        try:
            await proceed(call)
        except HandrailError as error:
            await _abort(call, error)
        except grpc.aio.AbortError:
            raise
        except Exception:
            incident = token_hex(8)
            _logger.exception("incident %s: %s failed unexpectedly", incident, call.method)
            text = f"something unexpected happened; the coordinator's log has it as incident {incident}"
            await _abort(call, HandrailError(ErrorReason.ERROR_REASON_INTERNAL, text, incident=incident))


class AuthGuard:
    """Requires a bearer token and the method's role, before the request is looked at; remembers the caller.

    An open method needs no token. One that `shows_more` to a verified caller refuses a token that is not valid. A
    stream ends when its caller's token expires or is revoked.
    """

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier

    async def around(self, call: Call, proceed: Proceed) -> None:
        """See `Around`."""
        access = ACCESS.get(call.method)
        if access is not None and access.open and not (access.shows_more and call.metadata.get("authorization")):
            await proceed(call)
            return
        token = _bearer_token(call)
        verified = await self._verifier.verify(token)
        authorization.set_caller(verified.caller, call.method)
        authorization.require()
        set_token(verified)
        if not call.streams:
            await proceed(call)
            return
        async with while_valid(self._verifier, token, verified):
            await proceed(call)


class ScopeGuard:
    """Requires that the method's role covers the template that a request brings, before anything is validated."""

    async def around(self, call: Call, proceed: Proceed) -> None:
        """See `Around`. Behind `Receiving`, which reads the request."""
        authorization.require_given(call.request)
        await proceed(call)


class DeadlineGuard:
    """Bounds every unary call by the caller's deadline, or by a default if the caller set none.

    `longer` maps methods that take longer to their defaults, by full path. A stream lasts as long as its caller wants.
    The time left covers everything that the handler waits for (`deadlines.time_left`).
    """

    def __init__(self, *, default: timedelta, floor: timedelta, longer: Mapping[str, timedelta]) -> None:
        self._default = default
        self._floor = floor.total_seconds()
        self._longer = longer

    async def around(self, call: Call, proceed: Proceed) -> None:
        """See `Around`."""
        if call.streams:
            await proceed(call)
            return
        # None if the caller set no deadline; the type stub omits that.
        left: float | None = call.context.time_remaining()
        default = self._longer.get(call.method, self._default)
        seconds = default.total_seconds() if left is None else left
        if seconds < self._floor:
            raise _too_late(call, f"its deadline leaves {seconds:.3f} s, but at least {self._floor:.3f} s are needed")
        set_deadline(seconds)
        scope = asyncio.timeout(seconds)
        try:
            async with scope:
                await proceed(call)
        except TimeoutError:
            if not scope.expired():
                raise
            why = f"not done after {seconds:.1f} s; its changes may have been recorded: read them before you retry"
            raise _too_late(call, why) from None


class ContractGuard:
    """Refuses a request that can't be read or breaks its contract; the error lists every field and rule."""

    def __init__(self) -> None:
        self._contracts = Contracts.from_descriptor_set(b"")

    async def around(self, call: Call, proceed: Proceed) -> None:
        """See `Around`."""
        request = call.request
        if isinstance(request, MalformedRequest):
            raise request.refusal()
        if isinstance(request, Message):
            broken = (*self._contracts.violations(request), *well_known.violations(request))
            if broken:
                raise ContractViolation(request.DESCRIPTOR.full_name, broken)
        await proceed(call)


def _bearer_token(call: Call) -> str:
    header = call.metadata.get("authorization", "")
    if not header:
        raise unauthenticated('no token: send the metadata "authorization: Bearer …"')
    if not header.lower().startswith(_BEARER):
        raise unauthenticated('the metadata "authorization" must be "Bearer" and a token')
    return header[len(_BEARER) :].strip()


async def _abort(call: Call, error: HandrailError) -> None:
    call.error = error
    await call.context.abort_with_status(rpc_status.to_status(to_status(error)))  # type: ignore[attr-defined]


def _too_late(call: Call, why: str) -> HandrailError:
    return HandrailError(ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED, f"{call.name}: {why}", method=call.method)
