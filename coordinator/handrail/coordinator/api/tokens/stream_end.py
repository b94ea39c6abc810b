"""Streams end with the token of their caller: when it expires or is revoked, or when its key is withdrawn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from handrail.coordinator.api.tokens.rules import LEEWAY
from handrail.coordinator.api.tokens.verifier import TokenVerifier, Verified

CHECK_EVERY = timedelta(seconds=4)
"""How often the token of a stream is verified again: what is revoked ends within 5 s."""

_SHORTEST = 0.05


@asynccontextmanager
async def while_valid(verifier: TokenVerifier, token: str, verified: Verified) -> AsyncIterator[None]:
    """Runs the block until the token no longer verifies; raises then what `verify` raises."""
    scope = asyncio.timeout(None)
    check = _Check(verifier, token, scope)
    watching = asyncio.create_task(check.run(verified.validity.expires_at))
    try:
        async with scope:
            yield
    except TimeoutError:
        if check.failed is None:
            raise
        raise check.failed from None
    finally:
        watching.cancel()


class _Check:
    """Verifies a token again and again, and ends the scope once that fails."""

    def __init__(self, verifier: TokenVerifier, token: str, scope: asyncio.Timeout) -> None:
        self._verifier = verifier
        self._token = token
        self._scope = scope
        self.failed: Exception | None = None

    async def run(self, expires_at: datetime) -> None:
        while self.failed is None:
            left = (expires_at + LEEWAY - datetime.now(UTC)).total_seconds()
            await asyncio.sleep(max(_SHORTEST, min(CHECK_EVERY.total_seconds(), left)))
            try:
                await self._verifier.verify(self._token)
            except Exception as error:
                # Whatever it is, the stream ends with it: an unexpected error must not let it run on.
                self.failed = error
        self._scope.reschedule(asyncio.get_running_loop().time())
