"""Receiving a call's messages: each is awaited for a bounded time, so that nobody holds a call by staying silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta

from handrail.coordinator.api.authorization import caller_if_known
from handrail.coordinator.api.interceptors import Call, MalformedRequest, Proceed
from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason

PATIENCE = timedelta(seconds=10)
"""How long each message of a call may take: 1 MiB at 1 Mbit/s takes nine seconds."""

STRANGERS = 256
"""Calls without a verified caller that may wait for their message at the same time."""


class Receiving:
    """Reads the request of each call.

    Guards before it run before any message is read: a call that they refuse costs no more than its headers.

    At most `strangers` calls without a verified caller wait for their message. One more ends the one that has waited
    longest: a flood of silent calls displaces itself, and a health probe, whose message follows its headers at once,
    is answered.
    """

    def __init__(self, *, patience: timedelta = PATIENCE, strangers: int = STRANGERS) -> None:
        self._patience = patience.total_seconds()
        self._strangers = strangers
        self._waiting: dict[asyncio.Timeout, None] = {}

    async def around(self, call: Call, proceed: Proceed) -> None:
        """See `Around`."""
        call.request = self._each(call) if call.streams_requests else await self._only(call)
        await proceed(call)

    async def _only(self, call: Call) -> object:
        request = await self._next(call)
        if request is None:
            raise HandrailError(
                ErrorReason.ERROR_REASON_MALFORMED, f"{call.name}: the call has no message that can be read"
            )
        return request

    async def _each(self, call: Call) -> AsyncIterator[object]:
        while (request := await self._next(call)) is not None:
            if isinstance(request, MalformedRequest):
                raise request.refusal()
            yield request

    async def _next(self, call: Call) -> object:
        """Returns the next message of a call; None at its end."""
        scope = asyncio.timeout(self._patience)
        try:
            async with scope:
                if caller_if_known() is not None:
                    return await call.receive()
                with self._bounded(scope):
                    return await call.receive()
        except TimeoutError:
            text = f"{call.name}: its message did not come in time"
            raise HandrailError(ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED, text, method=call.method) from None

    @contextmanager
    def _bounded(self, scope: asyncio.Timeout) -> Iterator[None]:
        if len(self._waiting) >= self._strangers:
            longest = next(iter(self._waiting))
            del self._waiting[longest]
            if not longest.expired():
                longest.reschedule(0)
        self._waiting[scope] = None
        try:
            yield
        finally:
            self._waiting.pop(scope, None)
