"""Refresh tokens that nobody needs any more: the provider revokes them, in the background."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from datetime import timedelta

from handrail.console.openid.provider import Provider, ProviderError

log = logging.getLogger(__name__)

MOST_AT_ONCE = 4
"""So many are revoked at a time: the provider is asked 16 questions at a time, and people want to sign in."""

MOST_WAITING = 2_000
"""So many wait; the console has 1,000 sessions at most."""


class Revocations:
    """Has the provider revoke each token that is added. If it can't be asked, the log says so, and it was all.

    Without a provider there are no tokens.
    """

    def __init__(self, provider: Provider | None) -> None:
        self._provider = provider
        self._waiting: deque[str] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, refresh_token: str) -> None:
        """Has a token revoked soon; an empty one is none."""
        if self._provider is None or not refresh_token:
            return
        if len(self._waiting) >= MOST_WAITING:
            log.warning("a token is not revoked: %d others wait for %s", MOST_WAITING, self._provider.client.name)
            return
        self._waiting.append(refresh_token)
        if len(self._tasks) < MOST_AT_ONCE:
            self._tasks.add(asyncio.create_task(self._revoke_waiting(self._provider)))

    async def finish(self, within: timedelta) -> None:
        """Waits until all are revoked, but no longer than that; the log says how many were left."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within.total_seconds())
        if self._tasks:
            log.warning("%d tokens are not revoked: the console ends", len(self._waiting) + len(self._tasks))
        for task in self._tasks:
            task.cancel()

    async def _revoke_waiting(self, provider: Provider) -> None:
        try:
            while self._waiting:
                await self._revoke(provider, self._waiting.popleft())
        finally:
            # Not when the loop comes round to it: what is added until then would wait for nobody.
            self._tasks.discard(asyncio.current_task())

    async def _revoke(self, provider: Provider, refresh_token: str) -> None:
        try:
            await provider.revoke(refresh_token)
        except ProviderError as error:
            log.warning("the provider did not revoke the token of a session that is over: %s", error)
